"""What flags select in a model: one file per component, each registered under its own name.

The protocol is `stackwise_ray.models.component`. Declarations load without torch.
"""
