"""One file per kind of source that runs are read from; `kinds` lists them, `source_kind` says what a kind is."""
