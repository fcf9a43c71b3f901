"""The sections `tpu_vm` and `xpk` of a training config: which TPUs, where, and the most that they may cost."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from launch.config.accelerators import CHIPS_PER_HOST, Accelerator, parse_accelerator
from launch.config.prices import Price, list_price
from transforms.config.section import Section, Text, mended
from transforms.errors import UsageError
from transforms.quantities import parse_size, shown

CONFIG_SOURCE = "the config's price_per_hour"

# Cloud TPU's and GKE's own rules (https://google.aip.dev/122); xpk allows 40 characters.
_RESOURCE = r"[a-z](?:[-a-z0-9]{0,38}[a-z0-9])?"


def _matching(pattern: str, what: str, example: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise UsageError(f"{shown(value)} is no {what}; write one such as {example}")
        return value

    return mended(check)


def _check_accelerator(value: str) -> str:
    return parse_accelerator(value).name


def _parse_price(value: Any) -> Decimal:
    try:
        # Through text, so that a float is the number that was written.
        price = Decimal(str(value)) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except InvalidOperation:
        price = None
    if price is None or not price.is_finite() or not 0 <= price < 10**9:
        raise UsageError(f"{shown(value)} is no price; write what the whole costs an hour in US dollars, as 25.76")
    return price


def _parse_cache_size(value: Any) -> int:
    size = parse_size(value)
    if size and size < 2**20:
        raise UsageError(f"{shown(value)} is below 1 MiB; write a size such as 40GiB, or 0 for no cache")
    return size


AcceleratorName = Annotated[str, AfterValidator(mended(_check_accelerator))]
Zone = Annotated[
    str, AfterValidator(_matching(r"[a-z]+-[a-z]+[0-9]+-[a-z0-9]+", "zone of Google Cloud", "us-central2-b"))
]
Project = Annotated[
    str,
    AfterValidator(_matching(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "id of a project", "my-project-123")),
]
ResourceName = Annotated[
    str,
    AfterValidator(_matching(_RESOURCE, "name for it (lower-case letters, digits and -, at most 40)", "nano-demo")),
]
Network = Annotated[str, AfterValidator(_matching(r"[a-z0-9/-]+", "network", "default"))]
ServiceAccount = Annotated[
    str,
    AfterValidator(
        _matching(r"[a-z0-9-]+@[a-z0-9.-]+", "service account", "trainer@my-project-123.iam.gserviceaccount.com")
    ),
]
Duration = Annotated[
    str, AfterValidator(_matching(r"[1-9][0-9]{0,5}[smhd]", "duration (a number and s, m, h or d)", "6h"))
]
PricePerHour = Annotated[
    Decimal,
    PlainValidator(mended(_parse_price)),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}),
]
CacheSize = Annotated[
    int,
    PlainValidator(mended(_parse_cache_size)),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
]
CacheFolder = Annotated[str, AfterValidator(_matching(r"(?:/[A-Za-z0-9._-]+)+", "absolute path", "/var/cache/gcsfuse"))]
GcsfusePackage = Annotated[
    str,
    AfterValidator(
        _matching(
            r"[0-9]+\.[0-9]+\.[0-9]+@sha256:[0-9a-f]{64}",
            "package of gcsfuse (VERSION@sha256:SUM)",
            "X.Y.Z@sha256: and the 64 digits that sha256sum shows",
        )
    ),
]
Image = Annotated[
    str,
    AfterValidator(_matching(r"[a-z0-9][a-z0-9._:/@-]*", "container image", "europe-docker.pkg.dev/P/R/maxtext:1")),
]


class TpuConfig(Section):
    """The keys that both ways to TPUs share."""

    accelerator: AcceleratorName = Field(
        description="The slice. For v4 and v5p the number counts TensorCores, two a chip, else chips.",
        examples=["v6e-8", "v5p-8", "v5litepod-16", "v4-32"],
    )
    zone: Zone = Field(
        description="Where it is. Not all zones have all kinds: https://cloud.google.com/tpu/docs/regions-zones.",
        examples=["europe-west4-a"],
    )
    project: Project | None = Field(
        default=None, description="The project that pays; gcloud's own by default.", examples=["my-project-123"]
    )
    spot: bool = Field(
        default=False, description="Spot capacity: cheaper, and taken away at any time.", examples=["true"]
    )
    name: ResourceName | None = Field(
        default=None, description="Its name there; by default that of the run.", examples=["nano-demo"]
    )
    price_per_hour: PricePerHour | None = Field(
        default=None,
        description="The price of all of it for an hour, where you do not pay the list price.",
        examples=["25.76"],
    )
    max_restarts: int = Field(
        default=10,
        ge=0,
        le=1000,
        description="How often a trainer that fails is started again before it is given up.",
        examples=["3"],
    )

    def slice(self) -> Accelerator:
        """The slice that `accelerator` names."""
        return parse_accelerator(self.accelerator)

    def hosts(self) -> int:
        """How many machines train."""
        return self.slice().machines

    def price(self) -> Price | None:
        """The price in the config, else the list price; None where neither is known."""
        if self.price_per_hour is not None:
            return Price(self.price_per_hour, CONFIG_SOURCE)
        return list_price(self.slice(), self.zone, spot=self.spot)


class TpuVmConfig(TpuConfig):
    """A TPU VM, by a queued resource."""

    runtime_version: Text | None = Field(
        default=None,
        description="The machine image; by default the one that Google names for JAX on this kind of TPU.",
        examples=["v2-alpha-tpuv6e"],
    )
    network: Network | None = Field(
        default=None,
        description="The network of the machines; by default the one that is called so, `default`.",
        examples=["my-network"],
    )
    subnetwork: Network | None = Field(default=None, description="Their subnetwork.", examples=["my-subnetwork"])
    internal_ips: bool = Field(
        default=False,
        description="No addresses on the internet. The network then needs a NAT, since MaxText is installed from PyPI, "
        "and you a way in.",
        examples=["true"],
    )
    service_account: ServiceAccount | None = Field(
        default=None,
        description="The account of the machines, which reads the data's bucket and writes the output's; the project's "
        "default account by default.",
        examples=["trainer@my-project-123.iam.gserviceaccount.com"],
    )
    give_up_after: Duration | None = Field(
        default=None,
        description="How long the request may wait for free TPUs; without end by default.",
        examples=["6h"],
    )
    resume_preempted: bool = Field(
        default=True,
        description="`logs --follow` requests a preempted spot slice again, and the run goes on.",
        examples=["false"],
    )
    cache_size: CacheSize = Field(
        default=40 * 2**30,
        description="How much of the data each machine may keep on its disk. It is used where all of the data fits.",
        examples=["100GiB"],
    )
    cache_folder: CacheFolder = Field(
        default="/var/cache/broetchen", description="Where it is kept.", examples=["/mnt/disks/cache"]
    )

    gcsfuse: GcsfusePackage | None = Field(
        default=None,
        description="The gcsfuse that mounts the buckets: the version of a release, and the SHA-256 of its "
        "`gcsfuse_VERSION_amd64.deb`; by default the newest of Google's own, signed apt repository.",
        examples=[f"0.0.0@sha256:{64 * '0'}"],
    )

    def image(self) -> str:
        """The machine image."""
        return self.runtime_version or self.slice().generation.runtime_version


class XpkConfig(TpuConfig):
    """A workload on a GKE cluster that xpk has made."""

    cluster: ResourceName = Field(description="The cluster.", examples=["my-cluster"])
    image: Image = Field(
        default="python:3.12-slim-bookworm",
        description="The container image: with Python 3.12, where MaxText is installed at each start from the lock "
        "file, or with all of MaxText.",
        examples=["europe-docker.pkg.dev/my-project-123/images/maxtext:0.2.5"],
    )
    num_slices: int = Field(default=1, ge=1, le=1024, description="How many slices train together.", examples=["2"])
    priority: Literal["very-low", "low", "medium", "high", "very-high"] = Field(
        default="medium", description="Which workloads of the cluster go first.", examples=["high"]
    )

    def hosts(self) -> int:
        """How many machines train, those of all slices together."""
        return -(-self.slice().chips // CHIPS_PER_HOST) * self.num_slices

    def price(self) -> Price | None:
        """The price in the config, else the list price of all slices; None where neither is known."""
        price = super().price()
        if price is None or self.price_per_hour is not None:
            return price
        return Price(price.per_hour * self.num_slices, price.source, price.at_most)
