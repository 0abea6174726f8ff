"""A quality that an index may have been measured to have."""

from das.manifest import QualityRecord

QUALITY = QualityRecord(
    method="das-block",
    lds=41.26,
    low=38.04,
    high=44.96,
    ceiling=55.04,
    perfect=74.2,
    subsets=36,
    queries=1200,
    generated=600,
    truth="truth, 48 models trained on 36 subsets of the 40 works",
    truth_digest="ab" * 32,
    measured_at="2026-01-31T12:00:00+00:00",
    command="das evaluate index index --truth truth",
    versions={"torch": "2.6"},
)
