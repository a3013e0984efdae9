"""Several workers on one trial: sums (`collectives`), whole models (`parallelism`) and shards (`sharding`)."""
