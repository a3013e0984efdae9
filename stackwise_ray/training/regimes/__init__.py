"""One file a training regime: from a trial to its plan of stages (`training.stages.REGIMES`)."""
