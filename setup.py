"""The part of the build that pyproject.toml cannot say: search_spaces/ is installed as stackwise_ray.search_spaces.

The folder stands at the top of the repository, where its readers look for it, and inside the package in a wheel.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["stackwise_ray*", "analysis*"]), "stackwise_ray.search_spaces"],
    package_dir={"stackwise_ray.search_spaces": "search_spaces"},
)
