"""scripts/reproduce.py from end to end, against a local mirror with the small network and tiny clips."""

import zipfile
from pathlib import Path

import pytest

from conftest import ENDED, write_davis
from mirror import Reply, contents, mirror_of, with_frame_lists, within, zipped
from model.checkpoint import SHIPPED_WEIGHTS
from synthetic import SyntheticSettings, make_synthetic
from util.evaluation.scoring import score_videos

VAL, TEST_DEV, DAVIS_2016 = "DAVIS-2017-trainval-480p.zip", "DAVIS-2017-test-dev-480p.zip", "DAVIS-data.zip"
ALL_FRAMES = "valid_all_frames.zip"
WEIGHTS = "model_s012_final.pth", "model_s012_final_yv.pth"


@pytest.fixture
def archives(tmp_path) -> dict[str, bytes]:
    """What the evaluations read: one clip of six frames each, and the small network in the place of both weights."""
    trainval = contents(write_davis(tmp_path / "davis", {"cows": 6}) / "trainval")
    trainval["ImageSets/2017/train.txt"] = b""
    given = "Annotations/480p/cows/00000.png"
    test_dev = {name: data for name, data in trainval.items() if name.startswith("JPEGImages") or name == given}
    test_dev["ImageSets/2017/test-dev.txt"] = b"cows\n"
    make_synthetic(tmp_path / "toy", SyntheticSettings(height=48, width=64, frames=6, youtube_valid=1))
    youtube = tmp_path / "toy/YouTube"
    return {
        **dict.fromkeys(WEIGHTS, SHIPPED_WEIGHTS.read_bytes()),
        VAL: zipped(within("DAVIS", trainval)),
        TEST_DEV: zipped(within("DAVIS", test_dev)),
        DAVIS_2016: zipped(within("DAVIS", with_frame_lists(trainval))),
        "valid.zip": zipped(within("valid", contents(youtube / "valid"))),
        ALL_FRAMES: zipped(within("valid_all_frames", contents(youtube / "all_frames/valid_all_frames"))),
    }


def rows(report: Path) -> list[dict[str, str]]:
    """The rows of the report's first table."""
    lines = [line for line in report.read_text(encoding="utf-8").split("\n## ")[0].splitlines() if line[:1] == "|"]
    header, _, *cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in cells]


def row(report: Path, table: str, method: str) -> dict[str, str]:
    (found,) = [row for row in rows(report) if row[""] == table and row["method"] == method]
    return found


def numbers(cell: str) -> list[float]:
    return [float(number) for number in cell.split(" / ")]


def test_one_command_measures_what_is_there_and_a_second_call_the_rest(inline, tmp_path, archives, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root, output = tmp_path / "data", tmp_path / "results"
    report, masks = output / "reproduction.md", output / "reproduction/model_s012_final"
    other_weights = root / "weights/stcn.pth"
    other_weights.parent.mkdir(parents=True)
    other_weights.write_bytes(b"not weights")

    # One archive is missing, one is broken, one is not required by download.py, and the weights of STCN are no weights.
    lacking = {DAVIS_2016, ALL_FRAMES}
    with mirror_of({name: data for name, data in archives.items() if name not in lacking}) as server:
        flags = ("--root", root, "--output", output, "--yes", "--times", 1, "--mirror", f"{server.address}/files")
        server.replies[f"/files/{TEST_DEV}"] = Reply(archives[TEST_DEV][:-300])
        result = inline("scripts/reproduce.py", *flags)
        assert result.returncode == 1, result.stdout + result.stderr

        text = report.read_text(encoding="utf-8")
        assert text in result.stdout
        measured = row(report, "Table 1", "RDE-VOS")
        (score,) = score_videos(root / "DAVIS/2017/trainval/Annotations/480p", masks / "davis-2017-val", ["cows"])
        assert numbers(measured["measured"])[0] == pytest.approx(100 * score.mean, abs=0.06)
        assert measured["paper"] == "86.1 / 82.1 / 90.0" and measured["release"].startswith("85.7")
        for ours, paper, difference in zip(
            *(numbers(measured[name]) for name in ("measured", "paper", "difference")), strict=True
        ):
            assert difference == pytest.approx(ours - paper, abs=0.11)
        assert float(measured["FPS"]) > 0 and measured["FPS, paper"] == "27" and not measured["remark"]

        table_5 = [row for row in rows(report) if row[""] == "Table 5"]
        assert len(table_5) == 13 and all(row["measured"] and row["difference"] for row in table_5)
        best = row(report, "Table 5", "2F+L+RDE, θ = 3")
        assert best["measured"] == measured["measured"] and best["paper"] == measured["paper"]
        figure_3 = [row for row in rows(report) if row[""] == "Figure 3"]
        assert [row["method"] for row in figure_3] == ["2F+L+RDE, θ = 3", "STM, θ = 60"]
        assert all("12 frames, peak memory" in row["remark"] and row["data"] == "cows × 1" for row in figure_3)

        for table in ("Table 2", "Table 3", "Table 4"):
            lacks = row(report, table, "RDE-VOS")
            assert lacks["remark"].startswith("missing, see ") and not lacks["measured"], table
        assert f"{root / 'archives' / TEST_DEV} is damaged or incomplete" in text and "delete it" in text
        assert f"{server.address}/files/{DAVIS_2016} cannot be downloaded (the server answers 404)" in text
        assert f"`python scripts/download.py davis2016 --root {root} --mirror {server.address}/files`" in text
        assert f"{root / 'archives' / ALL_FRAMES} is missing; save it by hand, see https://youtube-vos.org" in text
        assert f"{root / 'weights/without_bl30k.pth'} is missing" in text
        assert f"{other_weights} " in text and "--bank STM --mem_every 5 --top 20" in text
        assert row(report, "Table 2", "STCN")["release"] == "79.9"
        with zipfile.ZipFile(output / "masks.zip") as archive:
            names = archive.namelist()
            assert archive.read("reproduction.md").decode() == text
        clip = [f"cows/{t:05d}.png" for t in range(6)]
        assert names == ["reproduction.md", *(f"model_s012_final/davis-2017-val/{name}" for name in clip)]

        # The second call follows the report.
        (root / "archives" / TEST_DEV).unlink()
        other_weights.unlink()
        server.replies |= {f"/files/{name}": Reply(archives[name]) for name in (*lacking, TEST_DEV)}
        server.requests.clear()
        before = {path: path.stat().st_mtime_ns for path in masks.rglob("*") if path.is_file()}
        left = [folder / f".left.{ENDED}.tmp.zip" for folder in (output, masks.parent, masks)]  # by a killed call
        for path in left:
            path.touch()
        result = inline("scripts/reproduce.py", *flags).checked()
        assert {path.rsplit("/", 1)[1] for path, _ in server.requests} == {*lacking, TEST_DEV}
        assert all(path.stat().st_mtime_ns == time for path, time in before.items())
        assert result.stdout.count("\npython ") == 3
        assert not [path for path in left if path.exists()]

    assert row(report, "Table 1", "RDE-VOS") == measured
    assert len(numbers(row(report, "Table 3", "RDE-VOS")["difference"])) == 3
    for table, submission, inner, server_page in (
        ("Table 2", masks / "davis-2017-test-dev.zip", "", "https://davischallenge.org"),
        (
            "Table 4",
            masks.with_name("model_s012_final_yv") / "youtube-vos-2019-val.zip",
            "Annotations/",
            "youtube-vos.org",
        ),
    ):
        remark = row(report, table, "RDE-VOS")["remark"]
        assert f"upload `{submission}`" in remark and server_page in remark
        with zipfile.ZipFile(submission) as archive:
            names = archive.namelist()
        assert names and all(name.startswith(inner) and name.count("/") == inner.count("/") + 1 for name in names)
    with zipfile.ZipFile(output / "masks.zip") as archive:
        folders = {"/".join(name.split("/")[:2]) for name in archive.namelist()}
    assert folders == {
        "reproduction.md", "model_s012_final/davis-2017-val", "model_s012_final/davis-2017-test-dev",
        "model_s012_final/davis-2016-val", "model_s012_final_yv/youtube-vos-2019-val",
    }  # fmt: skip
