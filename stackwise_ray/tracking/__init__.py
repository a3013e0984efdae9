"""What a sweep records: the journal (the one truth, one writer) and the trackers that are fed from it.

`journal.Journal` is written by the driver alone. `mlflow.MlflowTracker` reads it, through the interface of
`interface.Tracker`; a sweep is complete without a tracker, and never waits for one.
"""
