"""The internals of Beam that a cluster rests on; a version that has changed them fails here.

Of the runner itself see `tests/beam_pipelines/runners/test_local_runner.py`.
"""

from __future__ import annotations

import inspect
import re

from apache_beam.runners.portability import abstract_job_service, job_server, portable_runner
from apache_beam.runners.portability.abstract_job_service import AbstractBeamJob, AbstractJobServiceServicer
from apache_beam.runners.worker import channel_factory, data_plane, sdk_worker, sdk_worker_main
from apache_beam.transforms.environments import python_sdk_capabilities

from beam_pipelines.cluster.calls import TO_HOSTS
from beam_pipelines.cluster.job import ClusterJob
from beam_pipelines.cluster.service import JobService
from beam_pipelines.cluster.worker import take_keepalives


def test_the_job_service_has_the_methods_that_ours_looks_at() -> None:
    methods = {name for name, _ in inspect.getmembers(AbstractJobServiceServicer, inspect.isfunction)}
    asked_by_id = {"Run", "GetState", "GetPipeline", "Cancel", "GetStateStream", "GetMessageStream"}
    assert {name for name in methods if name[0].isupper()} == asked_by_id | {
        "Prepare",
        "GetJobs",
        "GetJobMetrics",
        "DescribePipelineOptions",
        "Drain",  # of the protocol alone: gRPC answers that it is not implemented
    }
    assert all(name in vars(JobService) for name in {*asked_by_id, "Prepare", "GetJobMetrics"})
    source = inspect.getsource(AbstractJobServiceServicer)
    of_jobs = set(re.findall(r"self\._jobs\[(?:request\.job_id|job_id|preparation_id)\]\.(\w+)", source))
    assert of_jobs == {"prepare", "run", "get_state", "get_pipeline", "cancel"}
    assert list(inspect.signature(AbstractJobServiceServicer.create_beam_job).parameters)[1:] == [
        "preparation_id",
        "job_name",
        "pipeline",
        "options",
    ]


def test_a_job_has_the_methods_that_ours_replaces() -> None:
    abstract = {
        name
        for name, method in inspect.getmembers(AbstractBeamJob, inspect.isfunction)
        if "raise NotImplementedError" in inspect.getsource(method)
    }
    assert abstract == {
        "prepare",
        "run",
        "cancel",
        "artifact_staging_endpoint",
        "get_state_stream",
        "get_message_stream",
    }
    assert abstract <= set(vars(ClusterJob))
    source = inspect.getsource(AbstractBeamJob)
    for name in ("_job_id", "_pipeline_proto", "_pipeline_options", "_state_history"):
        assert f"self.{name} = " in source
    assert "resp = beam_job_api_pb2.JobMessagesResponse(message_response=msg)" in inspect.getsource(
        abstract_job_service
    )


def test_all_channels_of_a_worker_take_the_keepalives_of_the_factory() -> None:
    """Each module that connects does so by the factory, whose options are read when a channel is made."""
    for module in (sdk_worker, data_plane):
        source = inspect.getsource(module)
        assert "GRPCChannelFactory.insecure_channel(" in source
        assert "grpc.insecure_channel(" not in source
    options = channel_factory.GRPCChannelFactory.DEFAULT_OPTIONS
    before = list(options)
    try:
        take_keepalives()
        assert list(TO_HOSTS) == channel_factory.GRPCChannelFactory.DEFAULT_OPTIONS
    finally:
        options[:] = before


def test_the_harness_of_a_worker() -> None:
    assert list(inspect.signature(sdk_worker_main.create_harness).parameters) == ["environment", "dry_run"]
    assert "return fn_log_handler, sdk_harness, sdk_pipeline_options" in inspect.getsource(
        sdk_worker_main.create_harness
    )


def test_the_version_is_among_the_capabilities() -> None:
    (version,) = [one for one in python_sdk_capabilities() if one.startswith("beam:version:sdk_base:")]
    assert version.endswith("2.77.0")


def test_beams_client_keeps_no_watch_on_its_connection() -> None:
    """So that we do; see `beam_pipelines.runners.remote.run`."""
    assert "channel = grpc.insecure_channel(self._endpoint)" in inspect.getsource(job_server.ExternalJobServer)
    assert "_job_id" in inspect.getsource(portable_runner.PipelineResult.__init__)
