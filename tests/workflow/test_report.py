"""The report as a rule: made with a run, waited for by nothing, made again if it is gone."""

import os

from tests.workflow import runs


def test_a_run_ends_with_its_report(finished):
    report = finished.out / "report.html"
    text = report.read_text()
    assert "What was run" in text and "predict" in text and "Largest job" in text
    assert (finished.out / "report" / "stage-memory.svg").exists()
    assert runs.planned(finished.config, cwd=finished.cwd) == {}
    kept = report.stat()
    report.unlink()
    assert runs.planned(finished.config, cwd=finished.cwd) == {"report": 1}
    report.write_text(text)
    os.utime(report, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert runs.planned(finished.config, cwd=finished.cwd) == {}
