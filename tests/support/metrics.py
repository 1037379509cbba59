"""What a server counts, as values."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

Labels = dict[str, str]


class Metrics:
    """One answer of `/metrics`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    @property
    def names(self) -> set[str]:
        """The names of all series."""
        return {sample.name for sample in self.samples}

    def sum(self, name: str, **labels: str) -> float:
        """All series of that name that have these labels, added up."""
        return sum(sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items())

    def labels(self, name: str) -> list[Labels]:
        """The labels of each series of that name."""
        return [dict(sample.labels) for sample in self.samples if sample.name == name]


def scrape(url: str) -> Metrics:
    """What the server with that base URL gives out now."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return Metrics(answer.read().decode())
