"""C sources of the `cpu` backend, without torch or Python headers, and how they become a library.

    tile.h         lanes in float64 planes, the left cavity recursion, sums over broadcast axes
    planes.h       between tensors and planes
    every_tile.h   tiles shared out over threads
    diagonal.c     resolvent_diagonal and its backward pass
    stream.h       its causal form straight from tensor to tensor, in the usual case
    vector.h       eight channels as one value
    apply_lane.h   the substitutions of one lane
    apply.c        resolvent_apply and its backward pass
    build.py       compiled once into the user's cache

`stackwise_ray.kernels.backends.cpu` calls them.
"""
