"""scripts/download.py against a local server: archives of synthetic data, cuts, lies, and hostile archives."""

import io
import os
import pty
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from requests.adapters import HTTPAdapter

from conftest import assert_refused, full_disk
from dataset.layouts.davis import DAVIS
from dataset.layouts.youtube import YouTubeVOS
from downloads.catalogue import CATALOGUE
from mirror import Files, Reply, Server, contents, mirror_of, tarred, with_frame_lists, within, zipped
from synthetic import SyntheticSettings, make_synthetic

TRAINVAL, TEST_DEV, DAVIS_2016 = "DAVIS-2017-trainval-480p.zip", "DAVIS-2017-test-dev-480p.zip", "DAVIS-data.zip"
NOISE = np.random.default_rng(0).bytes(1_800_000)  # makes an archive larger than a few of the pieces that gdown writes
PEBIBYTE = 1 << 50


# Archives of synthetic data.
@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """A tiny synthetic data set."""
    root = tmp_path_factory.mktemp("toy") / "data"
    counts = {"static": 6, "bl": 2, "youtube_train": 1, "youtube_valid": 1}
    counts |= {"davis_train": 1, "davis_val": 1}
    make_synthetic(root, SyntheticSettings(height=48, width=64, frames=6, max_objects=2, **counts))
    # In test-dev only first frames have masks.
    for kind, frames in (("JPEGImages", "*.jpg"), ("Annotations", "00000.png")):
        for path in (root / "DAVIS/2017/trainval" / kind / "480p/davis-val-00000").glob(frames):
            target = root / "DAVIS/2017/test-dev" / kind / "480p/davis-test-00000" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (root / "DAVIS/2017/test-dev/ImageSets/2017").mkdir(parents=True)
    (root / "DAVIS/2017/test-dev/ImageSets/2017/test-dev.txt").write_text("davis-test-00000\n")
    return root


@pytest.fixture(scope="module")
def archives(toy, small_checkpoint) -> Files:
    """The files that the catalogue names, with drawn content. Of BL30K there are two parts."""
    trainval = {**contents(toy / "DAVIS/2017/trainval"), "README.md": NOISE}
    youtube, bl = toy / "YouTube", contents(toy / "BL30K")
    train = contents(youtube / "train")
    one, other = ({name: data for name, data in bl.items() if video in name} for video in ("bl-00000", "bl-00001"))
    return {
        "model_s012_final.pth": small_checkpoint.read_bytes(),
        "model_s012_final_yv.pth": small_checkpoint.read_bytes(),
        TRAINVAL: zipped(within("DAVIS", trainval)),
        TEST_DEV: zipped(within("DAVIS", contents(toy / "DAVIS/2017/test-dev"))),
        DAVIS_2016: zipped(within("DAVIS", with_frame_lists(trainval))),
        "train.zip": zipped({**within("__MACOSX/train", dict.fromkeys(train, b"")), **within("train", train)}),
        "valid.zip": zipped(within("valid", contents(youtube / "valid"))),
        "valid_all_frames.zip": zipped(
            within("valid_all_frames", contents(youtube / "all_frames" / "valid_all_frames"))
        ),
        "BL30K_a.tar": tarred(within("./BL30K", one)),
        "BL30K_b.tar": tarred(within("./BL30K", other)),
        "static.zip": zipped(contents(toy / "static")),
    }


# The server.
@pytest.fixture
def server(archives, monkeypatch) -> Iterator[Server]:
    """A mirror of all archives, below /files."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("random.uniform", lambda low, high: 0)  # gdown waits for so many seconds after a cut
    with mirror_of(archives) as server:
        yield server


Download = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def download(inline, server, root) -> Download:
    """Run scripts/download.py with the mirror and without a question."""

    def run(*arguments: object) -> subprocess.CompletedProcess:
        return inline(
            "scripts/download.py", *arguments, "--root", root, "--yes", "--mirror", f"{server.address}/files/"
        )

    return run


@pytest.fixture
def by_hand(inline, root) -> Download:
    """Run scripts/download.py on archives that were saved by hand: without a mirror and without an answer."""
    return lambda name: inline("scripts/download.py", name, "--root", root)


def save(root: Path, archive: str, data: bytes) -> Path:
    path = root / "archives" / archive
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def partial(root: Path) -> list[Path]:
    return list(root.rglob("*.part"))


def all_files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


# Everything.
def test_all_data_sets_come_into_their_layout_and_are_checked(download, server, root, toy, archives):
    names = ("davis2016", "davis2017", "youtube2019", "bl30k", "static", "weights")
    result = download(*names)
    assert result.returncode == 0, result.stdout + result.stderr
    for name in names:
        assert f"{name}: {CATALOGUE[name].title}\n  licence: {CATALOGUE[name].licence}" in result.stdout
    for folder in ("DAVIS/2017/test-dev", "YouTube/train", "YouTube/valid", "YouTube/all_frames", "BL30K", "static"):
        assert contents(root / folder) == contents(toy / folder), folder
    trainval = contents(toy / "DAVIS/2017/trainval")
    assert contents(root / "DAVIS/2017/trainval") == {**trainval, "README.md": NOISE}
    sets = root / "DAVIS/2016/trainval/ImageSets/2016"
    assert (sets / "train.txt").read_text() == "davis-train-00000\n"
    assert (sets / "val.txt").read_text() == "davis-val-00000\n"
    weights = root / "weights/model_s012_final_yv.pth"
    assert weights.read_bytes() == archives[weights.name] and weights.stat().st_mode & 0o077 == 0o044

    rows = [line.split() for line in result.stdout.splitlines()]
    for row in (
        "DAVIS 2016 train 1 6", "DAVIS 2016 val 1 6", "DAVIS 2017 train 1 6", "DAVIS 2017 val 1 6",
        "DAVIS 2017 testdev 1 1", "YouTube-VOS train 1 6", "YouTube-VOS valid 1", "BL30K 2 12", "FSS-1000 1 1",
        "HRSOD 1 1",
    ):  # fmt: skip
        assert any(line[: len(row.split())] == row.split() and line[-1] == "0" for line in rows), row
    assert "resize_youtube.py --yv_root" in result.stdout
    assert result.stdout.count("can be loaded") == 2
    assert f"{server.address}/files/BL30K_c.tar does not exist; it is not required" in result.stdout
    assert not any(path.name.endswith("unpacking") for path in root.rglob("*"))
    for dataset in (DAVIS(root / "DAVIS/2016", 2016), DAVIS(root / "DAVIS/2017"), YouTubeVOS(root / "YouTube")):
        assert len(dataset.videos()) == 1
    assert YouTubeVOS(root / "YouTube").has_all_frames

    server.requests.clear()
    before = all_files(root)
    again = download("davis2017", "static", "weights", "youtube2019", "davis2016")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is already there") == 9 and "downloaded from" not in again.stdout
    assert not server.requests and all_files(root) == before


def test_the_check_finds_what_is_broken_in_what_is_there(download, root, archives):
    assert download("davis2017").returncode == 0
    mask = root / "DAVIS/2017/trainval/Annotations/480p/davis-val-00000/00003.png"
    mask.write_bytes(mask.read_bytes()[:-30])
    result = download("davis2017")
    assert result.returncode == 1 and f"{mask} cannot be decoded" in result.stdout


# Cuts and lies.


@pytest.mark.parametrize("ranges", [True, False], ids=["Range honoured", "Range ignored"])
def test_a_cut_download_goes_on_in_the_next_call(ranges, download, server, root, archives, monkeypatch):
    monkeypatch.setattr("downloads.fetch._RETRIES", 0)
    reply = server.replies[f"/files/{TRAINVAL}"]
    reply.cut, reply.ranges = 1_200_000, ranges
    result = download("davis2017")
    assert_refused(result, f"{server.address}/files/{TRAINVAL} cannot be downloaded", "was interrupted", "to resume")
    assert len(server.requests) == 1
    (part,) = partial(root)
    size = part.stat().st_size
    assert archives[TRAINVAL].startswith(part.read_bytes()) and size > 500_000
    assert not (root / "DAVIS").exists()

    reply.cut = None
    server.requests.clear()
    result = download("davis2017")
    assert (f"/files/{TRAINVAL}", f"bytes={size}-") in server.requests
    if not ranges:
        assert_refused(result, "did not honor the requested byte range", f"delete {root / 'archives' / TRAINVAL}*.part")
        part.unlink()
        result = download("davis2017")
    assert result.returncode == 0, result.stderr
    assert (root / "archives" / TRAINVAL).read_bytes() == archives[TRAINVAL] and not partial(root)


def test_a_file_that_ends_before_its_announced_size_is_refused(download, server, root):
    reply = server.replies[f"/files/{TRAINVAL}"]
    reply.announced = len(reply.body) + 1000
    assert_refused(download("davis2017"), TRAINVAL, "cannot be downloaded", "delete")
    assert not (root / "archives" / TRAINVAL).exists() and not (root / "DAVIS").exists()


def test_a_server_without_the_file_is_one_sentence(download, server):
    del server.replies[f"/files/{TRAINVAL}"]
    assert_refused(download("davis2017"), f"{server.address}/files/{TRAINVAL}", "answers 404", "by hand")
    server.replies[f"/files/{TRAINVAL}"] = Reply(b"", status=503)
    assert_refused(download("davis2017"), f"{server.address}/files/{TRAINVAL}", "answers 503", "by hand")


# The disk is full.
def test_a_download_goes_on_after_the_disk_was_full(download, server, root):
    with full_disk(1_200_000):
        assert_refused(download("davis2017"), f"free some space in {root / 'archives'}")
    (part,) = partial(root)
    size = part.stat().st_size
    assert size > 500_000
    assert download("davis2017").returncode == 0
    assert (f"/files/{TRAINVAL}", f"bytes={size}-") in server.requests


def test_a_download_that_cannot_fit_is_not_begun(download, server, root):
    server.replies[f"/files/{TRAINVAL}"].announced = PEBIBYTE
    assert_refused(download("davis2017"), root / "archives" / TRAINVAL, "needs 1.00PB more", "free some space")
    assert all(path.stat().st_size < 1_000_000 for path in partial(root))


def test_nothing_is_half_unpacked_after_the_disk_was_full(by_hand, root, archives):
    save(root, DAVIS_2016, archives[DAVIS_2016])
    with full_disk(1_000_000):
        assert_refused(by_hand("davis2016"), f"free some space in {root / 'DAVIS/2016'}")
    assert all_files(root) == {f"archives/{DAVIS_2016}"} and not (root / "DAVIS/2016/trainval").exists()
    assert by_hand("davis2016").returncode == 0


# Hostile archives.
def zip_entry(name: str, kind: int = 0, **lies: int) -> bytes:
    """A zip archive of one entry. ``kind`` is its type on Unix, ``lies`` are wrong statements about its size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = (kind | 0o644) << 16
        archive.writestr(info, b"../../outside")
        for key, value in lies.items():
            setattr(archive.infolist()[0], key, value)
    return buffer.getvalue()


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, size: int | None = None) -> bytes:
    """A tar archive of one entry. ``size`` is a wrong statement about its size."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "../../outside"
        info.size = size or 0
        archive.addfile(info)
    return buffer.getvalue()


OTHER, DAMAGED = "another archive", "damaged or incomplete"
HOSTILE_ZIPS = {
    "parent folder": (zip_entry("DAVIS/../../../outside"), OTHER),
    "absolute path": (zip_entry("/tmp/outside-of-rde-vos"), OTHER),
    "symbolic link": (zip_entry("DAVIS/JPEGImages", stat.S_IFLNK), OTHER),
    "too large for the disk": (zip_entry("DAVIS/a", file_size=PEBIBYTE), "needs 1.00PB"),
    "larger than it says": (zip_entry("DAVIS/a", file_size=5), DAMAGED),
    "wrong checksum": (zip_entry("DAVIS/a", CRC=7), DAMAGED),
    "a password": (zip_entry("DAVIS/a", flag_bits=1), DAMAGED),
    "unknown compression": (zip_entry("DAVIS/a", compress_type=77), DAMAGED),
    "another archive": (zipped({"photos/a.jpg": b""}), OTHER),
    "empty": (b"", DAMAGED),
    "web page": (b"<html><body>Quota exceeded</body></html>", DAMAGED),
}
HOSTILE_TARS = {
    "parent folder": (tar_entry("./../outside"), DAMAGED),
    "absolute path": (tar_entry("/tmp/outside-of-rde-vos"), OTHER),
    "symbolic link": (tar_entry("BL30K", tarfile.SYMTYPE), DAMAGED),
    "hard link": (tar_entry("BL30K", tarfile.LNKTYPE), DAMAGED),
    "device": (tar_entry("BL30K", tarfile.CHRTYPE), DAMAGED),
    "too large for the disk": (tar_entry("BL30K/a", size=PEBIBYTE), "needs 1.00PB"),
    "a cut file": (tarred({"BL30K/a": bytes(5000)})[:3000], DAMAGED),
    "cut between two files": (tarred({"BL30K/a": b"a", "BL30K/b": b"b"})[:1024], DAMAGED),
    "no archive": (b"a" * 5000, DAMAGED),
}


@pytest.mark.parametrize(
    ("name", "archive", "data", "sentence"),
    [
        *(pytest.param("davis2016", DAVIS_2016, *case, id=f"zip, {title}") for title, case in HOSTILE_ZIPS.items()),
        *(pytest.param("bl30k", "BL30K_a.tar", *case, id=f"tar, {title}") for title, case in HOSTILE_TARS.items()),
    ],
)
def test_a_hostile_archive_is_refused(name, archive, data, sentence, by_hand, root, tmp_path):
    path = save(root, archive, data)
    assert_refused(by_hand(name), path, sentence)
    assert all_files(tmp_path) == {f"data/archives/{archive}"} and not Path("/tmp/outside-of-rde-vos").exists()


# By hand.
def test_youtube_says_what_to_do_by_hand_and_takes_what_is_there(by_hand, root, archives):
    result = by_hand("youtube2019")
    assert_refused(result, root / "archives/train.zip", "https://youtube-vos.org", "2 such files")
    for name in ("train.zip", "valid.zip", "valid_all_frames.zip"):
        assert f"by hand from https://youtube-vos.org and save it as {root / 'archives' / name}" in result.stdout
    save(root, "valid.zip", archives["valid.zip"])
    result = by_hand("youtube2019")
    assert_refused(result, f"{root / 'archives/train.zip'} is missing; save it by hand")
    assert "YouTube-VOS valid" in result.stdout and (root / "YouTube/valid/meta.json").is_file()
    save(root, "train.zip", archives["train.zip"])
    result = by_hand("youtube2019")
    assert result.returncode == 0, result.stderr
    assert "YouTube-VOS train" in result.stdout and f"{root / 'archives'} is no longer needed" in result.stdout


def test_a_call_that_ended_while_it_moved_files_is_made_good(by_hand, root, archives, toy):
    save(root, "BL30K_a.tar", archives["BL30K_a.tar"])
    obstacle = root / "BL30K/JPEGImages/bl-00000/00003.jpg/folder"
    obstacle.mkdir(parents=True)
    assert_refused(by_hand("bl30k"), f"{root / 'BL30K'} cannot be written")
    obstacle.rmdir()
    obstacle.parent.rmdir()
    leftover = root / ".BL30K.unpacking/BL30K"  # as a process that was killed leaves it
    leftover.mkdir(parents=True)
    assert by_hand("bl30k").returncode == 0
    expected = {name: data for name, data in contents(toy / "BL30K").items() if "bl-00000" in name}
    assert contents(root / "BL30K") == expected and not leftover.exists()


# The question.
def test_without_a_terminal_nothing_is_downloaded_unasked(inline, root, server, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    result = inline("scripts/download.py", "davis2017", "--root", root, "--mirror", f"{server.address}/files")
    assert_refused(result, "no terminal", "--yes")
    assert not server.requests and not root.exists()


NOTHING = "nothing was downloaded"  # sys.exit prints this and ends with 1


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", NOTHING), ("\x04", NOTHING)])
def test_a_terminal_is_asked(answer, code, inline, root, server, monkeypatch):
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    with open(theirs) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        result = inline("scripts/download.py", "weights", "--root", root, "--mirror", f"{server.address}/files")
    os.close(ours)
    assert result.returncode == code
    assert "Download on these terms?" in result.stdout and (root / "weights").exists() == (code == 0)


# Google Drive.
@pytest.fixture
def drive(server, monkeypatch) -> Server:
    """The server in place of Google's: the path of a request is the name of the host and the path there."""
    send = HTTPAdapter.send

    def redirect(adapter, request, **options):
        asked = urlsplit(request.url)
        assert asked.scheme == "https" and asked.hostname.endswith((".google.com", "modelscope.cn")), request.url
        request.url = f"{server.address}/{asked.hostname}{asked.path}" + (f"?{asked.query}" if asked.query else "")
        return send(adapter, request, **options)

    monkeypatch.setattr(HTTPAdapter, "send", redirect)
    server.replies.clear()
    return server


HTML = (("Content-Type", "text/html; charset=utf-8"),)
BINARY = (("Content-Type", "application/octet-stream"), ("Content-Disposition", 'attachment; filename="file"'))


@pytest.fixture
def from_drive(inline, root, drive) -> Download:
    """Run scripts/download.py with the usual addresses and without a question."""
    return lambda *names: inline("scripts/download.py", *names, "--root", root, "--yes")


def test_a_file_of_drive_comes_through_its_warning(from_drive, drive, root, archives):
    """Drive warns of large files, and the page with the warning holds the address of the file."""
    page = """<html><head><title>Google Drive - Virus scan warning</title></head><body>
        <form id="download-form" action="https://drive.usercontent.google.com/download" method="get">
        <input type="hidden" name="id" value="198aRlh5CpAoFz0hfRgYbiNenn_K8DxWD"/>
        <input type="hidden" name="confirm" value="t"/></form></body></html>""".replace("\n", "")
    confirmed = "/drive.usercontent.google.com/download?id=198aRlh5CpAoFz0hfRgYbiNenn_K8DxWD&confirm=t"
    drive.replies["/drive.google.com/uc?id=198aRlh5CpAoFz0hfRgYbiNenn_K8DxWD"] = Reply(page.encode(), headers=HTML)
    drive.replies[confirmed] = Reply(archives[DAVIS_2016], headers=BINARY, cut=1_200_000)
    result = from_drive("davis2016")
    assert result.returncode == 0, result.stderr
    assert any(path == confirmed and asked for path, asked in drive.requests)  # the cut was made good


def folder_page(names: dict[str, str]) -> bytes:
    links = "".join(
        f'<a href="https://drive.google.com/file/d/{number}/view">{name}</a>' for name, number in names.items()
    )
    return f"<html><head><title>weights</title></head><body>{links}</body></html>".encode()


FOLDER = "/drive.google.com/embeddedfolderview?id=1i6GtLPUNZe0h72IfhU2s_WHA7ZuVoudG"


def test_weights_are_found_in_their_folder_of_drive(from_drive, drive, root, small_checkpoint):
    names = {"model_s012_final.pth": "a" * 33, "other.pth": "b" * 33, "model_s012_final_yv.pth": "c" * 33}
    drive.replies[FOLDER] = Reply(folder_page(names), headers=HTML)
    for number in names.values():
        drive.replies[f"/drive.google.com/uc?id={number}"] = Reply(small_checkpoint.read_bytes(), headers=BINARY)
    result = from_drive("weights")
    assert result.returncode == 0, result.stderr
    assert set(contents(root)) == {"weights/model_s012_final.pth", "weights/model_s012_final_yv.pth"}


MODELSCOPE = "/modelscope.cn/models/damo/cv_rdevos_video-object-segmentation/resolve/master/pytorch_model.pt"


def test_weights_that_drive_refuses_come_from_modelscope(from_drive, drive, root, small_checkpoint):
    drive.replies[FOLDER] = Reply(folder_page({"model_s012_final.pth": "a" * 33}), headers=HTML)
    drive.replies[f"/drive.google.com/uc?id={'a' * 33}"] = Reply(small_checkpoint.read_bytes(), headers=BINARY)
    drive.replies[MODELSCOPE] = Reply(small_checkpoint.read_bytes(), headers=BINARY)
    result = from_drive("weights")
    assert result.returncode == 0, result.stderr
    assert "holds no model_s012_final_yv.pth" in result.stdout
    assert f"{root}/weights/pytorch_model.pt takes the place of model_s012_final_yv.pth" in result.stdout
    assert set(contents(root)) == {"weights/model_s012_final.pth", "weights/pytorch_model.pt"}


REFUSALS = {
    "quota": Reply(b'<p class="uc-error-subcaption">Too many users have viewed this file</p>', headers=HTML),
    "no access": Reply(b"<html><title>Google Drive - Access denied</title></html>", headers=HTML, status=403),
    "gone": Reply(b"<html><title>Error 404 (Not Found)</title></html>", headers=HTML, status=404),
}


@pytest.mark.parametrize("reply", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_of_drive_is_one_sentence_with_the_remedy(reply, from_drive, drive, root):
    drive.replies["/drive.google.com/uc?id=198aRlh5CpAoFz0hfRgYbiNenn_K8DxWD"] = reply
    page = "https://drive.google.com/file/d/198aRlh5CpAoFz0hfRgYbiNenn_K8DxWD/view cannot be downloaded"
    remedy = f"save the file as {root / 'archives' / DAVIS_2016}"
    assert_refused(from_drive("davis2016"), page, "Google Drive does not send it", remedy)
    assert all_files(root) == set()
