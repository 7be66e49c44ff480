"""What the jobs of Snakemake took is told as by any engine, beside its own benchmarks."""

import json

from pyarrow import parquet

from cellseg_pipe.stages.layout import read_layout


def test_each_job_is_a_row_and_its_start_counts(finished):
    rows = parquet.read_table(finished.out / "benchmarks.parquet").to_pylist()
    expected = [
        (unit, stage.name, batch)
        for unit, stage in read_layout(finished.out).jobs()
        for batch in range(stage.n_batches)
    ]
    told = dict.fromkeys((row["unit"], row["stage"], row["batch"]) for row in rows)
    assert list(told) == expected  # another test may have had parts of the run done again
    assert {row["threads"] for row in rows} == {1}
    # Of its own work a job that numbers some cells takes no tenth of a second.
    assert min(row["cpu_s"] for row in rows) > 0.2
    for row in rows:
        (own, *_) = (finished.out / "logs" / "a").glob(f"{row['stage']}-*.tsv")
        assert own.read_text().startswith("s\th:m:s\tmax_rss")
    said = json.loads((finished.out / "summary.json").read_text())["resources"]
    assert (said["jobs"], said["attempts"]) == (len(expected), len(rows))
