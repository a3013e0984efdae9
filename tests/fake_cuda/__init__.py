"""A CUDA device that has sizes and no data, so that code for a GPU runs whole on a machine without one.

    guard.cpp   tells torch that there is one CUDA device; preloaded into a process of its own
    device.py   the device: its tensors are fake, and every transfer, wait and mixture of devices is noted
    trials.py   the trials that run on it, one report each; `python -m tests.fake_cuda.trials`
    faults.py   faults that are planted to see whether the device notices

`tests/integration/test_integration_fake_cuda.py` builds the guard, starts the processes and reads the reports.
"""
