"""Metrics in Prometheus' text form: this gateway's own, and its shards' as they tell them."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from hub.shared import Health

ACK_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ShardFigures(Collector):
    """What each shard last told."""

    def __init__(self) -> None:
        self.by_shard: dict[str, dict[str, float]] = {}

    def collect(self) -> Any:
        names = sorted(
            {name for figures in self.by_shard.values() for name in figures if name != "process_cpu_seconds"}
        )
        for name in names:
            family = GaugeMetricFamily(f"hub_shard_{name}", f"{name.replace('_', ' ')} of a shard", labels=["shard"])
            for shard, figures in self.by_shard.items():
                if name in figures:
                    family.add_metric([shard], figures[name])
            yield family


class SharedFigures(Collector):
    """How what gateways share fares, as this gateway sees it."""

    def __init__(self) -> None:
        self.health = Health("in process", up=True)

    def collect(self) -> Any:
        health = self.health
        yield GaugeMetricFamily("hub_shared_up", "1 while what gateways share answers", value=float(health.up))
        yield CounterMetricFamily("hub_shared_errors", "Calls to it that failed", value=health.errors)
        yield CounterMetricFamily("hub_shared_fallbacks", "Requests that went on without it", value=health.fallbacks)


class GatewayMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.shards = ShardFigures()
        self.registry.register(self.shards)
        self.shared = SharedFigures()
        self.registry.register(self.shared)
        self.inbound = Counter(
            "hub_inbound_messages", "Customer messages acknowledged as durable", ["path"], registry=self.registry
        )
        self.refused = Counter("hub_refusals", "Requests refused, by code", ["code"], registry=self.registry)
        self.ack_seconds = Histogram(
            "hub_ack_seconds",
            "From receipt to durable acknowledgement",
            ["path"],
            buckets=ACK_BUCKETS_S,
            registry=self.registry,
        )
        # Looking a label up costs a microsecond, which the chat pays for every message.
        self.chat_inbound = self.inbound.labels("chat")
        self.chat_ack_seconds = self.ack_seconds.labels("chat")
        self.sessions = Gauge("hub_sessions", "Open WebSockets", ["kind"], registry=self.registry)
        self.published = Gauge(
            "hub_publications", "Events passed on to this gateway's sessions", registry=self.registry
        )
        self.not_admitted = Gauge(
            "hub_not_admitted_messages", "Customer messages refused since there was no room", registry=self.registry
        )
        self.waiting = Gauge("hub_waiting_commands", "Commands on their way to shards", registry=self.registry)
        self.lag_seconds = Gauge(
            "hub_loop_lag_seconds", "How late this gateway's event loop runs", registry=self.registry
        )
        self.cpu = Gauge(
            "hub_process_cpu_seconds", "CPU time of each process of the hub", ["process"], registry=self.registry
        )

    def text(self, gateway: str) -> bytes:
        self.cpu.labels(gateway).set(time.process_time())
        for shard, figures in self.shards.by_shard.items():
            self.cpu.labels(shard).set(figures.get("process_cpu_seconds", 0))
        return generate_latest(self.registry)
