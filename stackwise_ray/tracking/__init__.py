"""What a sweep records: the journal (the one truth, one writer) and the trackers that are fed from it.

`journal.Journal` is written by the driver alone. `mlflow.MlflowTracker` and `in_memory.InMemoryTracker` read it through
the interface of `interface.Tracker`; none of them is needed for a sweep to be complete, and none can hold one up.
"""
