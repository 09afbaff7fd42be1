"""Claims: what decides, what is kept, what is refused; and that what lies in data/claims belongs to a claim."""

import json

import pytest

from workbench import check, claims
from workbench.claims import __main__ as command


def claim(measure, name="X1"):
    return claims.Claim(name, "More is better.", "Somebody, 2020", "Counted on ten pictures.", measure)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([1.0, 2.0, 3.0], "holds"), ([-1.0, -2.0], "fails"), ([-1.0, 1.0, -2.0, 2.0], "open"), ([3.0], "open")],
)
def test_the_interval_of_the_first_quantity_decides(values, verdict):
    finding = claims.measure(claim(lambda: {"gain": values, "beside": [-7.0]}))
    assert finding.verdict == verdict in claims.VERDICTS
    assert finding.effect.mean == pytest.approx(sum(values) / len(values))
    assert finding.effect.n == len(values)
    assert f"X1 {verdict}: More is better. (Somebody, 2020)" in str(finding)
    assert "beside  -7, n = 1" in str(finding)


def test_what_is_kept_is_what_came_out(tmp_path):
    finding = claims.measure(claim(lambda: {"gain": [0.1, 0.2, 0.4]}))
    file = finding.save(tmp_path / "made")
    assert json.loads(file.read_text())["quantities"]["gain"]["n"] == 3
    assert claims.load_finding("X1", tmp_path / "made") == finding
    with pytest.raises(ValueError, match="name is 'X2', expected"):
        claims.load_finding("X2", tmp_path / "made")


@pytest.mark.parametrize(
    ("measured", "told"),
    [({}, "measured nothing"), ({"gain": []}, "gain has values"), ({"gain": [float("nan")]}, "finite numbers")],
)
def test_no_numbers_are_an_error(measured, told):
    with pytest.raises(ValueError, match=told):
        claims.measure(claim(lambda: measured))


def test_the_command(tmp_path, monkeypatch, capsys):
    known = {"X1": claim(lambda: {"gain": [1.0, 1.5]}), "X2": claim(lambda: {"gain": [-1.0, -2.0]}, "X2")}
    monkeypatch.setattr(claims, "list_claims", lambda: known)
    command.main(["--list"])
    assert capsys.readouterr().out.splitlines()[1] == "X2: More is better. (Somebody, 2020)"
    command.main(["X2", "--folder", str(tmp_path)])
    assert "X2 fails" in capsys.readouterr().out
    assert claims.list_findings(tmp_path) == ["X2"]
    command.main(["--folder", str(tmp_path)])
    assert claims.list_findings(tmp_path) == ["X1", "X2"]
    with pytest.raises(SystemExit, match="NAME is 'Y', expected one of"):
        command.main(["Y", "--folder", str(tmp_path)])


def test_the_command_goes_on_past_what_is_not_here(tmp_path, monkeypatch, capsys):
    def untrained():
        raise check.NotAvailable("out/x is not there.")

    known = {"X1": claim(untrained), "X2": claim(lambda: {"gain": [1.0]}, "X2")}
    monkeypatch.setattr(claims, "list_claims", lambda: known)
    with pytest.raises(SystemExit, match="Not measured: X1."):
        command.main(["--folder", str(tmp_path)])
    assert "X1 not measured: out/x is not there." in capsys.readouterr().out
    assert claims.list_findings(tmp_path) == ["X2"]


def test_findings_belong_to_claims_as_they_stand():
    known = claims.list_claims()
    for name in claims.list_findings():
        finding = claims.load_finding(name)
        assert (finding.says, finding.source, finding.test) == (
            known[name].says, known[name].source, known[name].test
        ), f"{name} was reworded or tested otherwise since: measure it again"  # fmt: skip
