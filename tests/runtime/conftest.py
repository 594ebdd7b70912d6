"""A bucket that several files try."""

import uuid

import pytest

from glscl_jax.runtime.bucket import Bucket
from tests.runtime.memory_bucket import Service


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def bucket(service):
    return Bucket(f"s3://{uuid.uuid4().hex}/run", "--workdir", service)
