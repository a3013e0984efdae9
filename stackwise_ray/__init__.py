"""stackwise_ray turns a claim about a model, a training regime or a trick into a measured, paired answer."""

__version__ = "0.1.0"
