"""The catalogue of scripts/download.py: names, addresses, licences and targets of weights and data sets.

Archives have the names that this project expects; a page may offer a file under another name.
"""

from dataclasses import dataclass

ARCHIVES = "archives"  # the folder of archives, in the root folder


@dataclass(frozen=True)
class Part:
    """One file of a data set. An archive is unpacked into a folder; any other file is used unchanged.

    A part with neither id nor address must be downloaded by hand.
    """

    name: str  # in `ARCHIVES`, in the folder of Google Drive, and on a mirror; archives end in .zip or .tar
    target: str  # the folder of the unpacked content, or of a file that is no archive, in the root folder
    holds: tuple[str, ...] = ()  # names that identify the content of an archive, in any case; they end up in ``target``
    drive_file: str | None = None  # the id of the file in Google Drive
    drive_folder: str | None = None  # the id of a folder in Google Drive that holds the file
    url: str | None = None  # the address of the file elsewhere
    required: bool = True  # whether the data set is useless without the file


@dataclass(frozen=True)
class DataSet:
    """A name on the command line, and its files."""

    title: str
    licence: str  # as far as it is known for certain, or where to read it
    homepage: str  # for a download by hand
    parts: tuple[Part, ...]
    substitute: Part | None = None  # of another source, in place of parts that cannot be downloaded
    next_step: str = ""  # after the download


_DAVIS = ("JPEGImages", "Annotations", "ImageSets")
_VIDEOS = ("JPEGImages", "Annotations")
_WEIGHTS = "1i6GtLPUNZe0h72IfhU2s_WHA7ZuVoudG"
_MODELSCOPE = "https://modelscope.cn/models/damo/cv_rdevos_video-object-segmentation/resolve/master"

CATALOGUE = {
    "weights": DataSet(
        title="the weights published by the paper's authors",
        licence="unknown; ask the paper's authors",
        homepage=f"https://drive.google.com/drive/folders/{_WEIGHTS}",
        parts=(
            Part("model_s012_final.pth", "weights", drive_folder=_WEIGHTS),
            Part("model_s012_final_yv.pth", "weights", drive_folder=_WEIGHTS),
        ),
        # The authors' second publication: by its card the model for YouTube-VOS 2019 val, with 83.3.
        substitute=Part("pytorch_model.pt", "weights", url=f"{_MODELSCOPE}/pytorch_model.pt"),
    ),
    "davis2016": DataSet(
        title="DAVIS 2016",
        licence="for research; see https://davischallenge.org",
        homepage="https://davischallenge.org",
        parts=(Part("DAVIS-data.zip", "DAVIS/2016/trainval", _DAVIS, drive_file="198aRlh5CpAoFz0hfRgYbiNenn_K8DxWD"),),
    ),
    "davis2017": DataSet(
        title="DAVIS 2017 at 480p",
        licence="for research; see https://davischallenge.org",
        homepage="https://davischallenge.org",
        parts=(
            Part("DAVIS-2017-trainval-480p.zip", "DAVIS/2017/trainval", _DAVIS, "1kiaxrX_4GuW6NmiVuKGSGVoKGWjOdp6d"),
            Part("DAVIS-2017-test-dev-480p.zip", "DAVIS/2017/test-dev", _DAVIS, "1fmkxU2v9cQwyb62Tj1xFDdh2p4kDsUzD"),
        ),
    ),
    "youtube2019": DataSet(
        title="YouTube-VOS 2019",
        licence="see https://youtube-vos.org; the page asks for a registration",
        homepage="https://youtube-vos.org",
        parts=(
            Part("train.zip", "YouTube/train", (*_VIDEOS, "meta.json")),
            Part("valid.zip", "YouTube/valid", (*_VIDEOS, "meta.json")),
            Part("valid_all_frames.zip", "YouTube/all_frames/valid_all_frames", ("JPEGImages",), required=False),
        ),
        next_step="make the small copies for training: python scripts/resize_youtube.py --yv_root {root}/YouTube",
    ),
    "bl30k": DataSet(
        title="BL30K",
        licence="see https://doi.org/10.13012/B2IDB-1702934_V1",
        homepage="https://doi.org/10.13012/B2IDB-1702934_V1",
        # All archives hold the same kind of videos, so training can start with the first one.
        parts=tuple(Part(f"BL30K_{letter}.tar", "BL30K", _VIDEOS, required=letter == "a") for letter in "abcdef"),
    ),
    "static": DataSet(
        title="the static images of DUTS, HRSOD, FSS-1000, ECSSD and BIG",
        licence=(
            "each data set has its own: http://saliencydetection.net/duts, https://github.com/yi94code/HRSOD, "
            "https://github.com/HKUSTCV/FSS-1000, ECSSD's page of the Chinese University of Hong Kong, "
            "https://github.com/hkchengrex/CascadePSP (BIG)"
        ),
        homepage="https://drive.google.com/file/d/1wUJq3HcLdN-z1t4CsUhjeZ9BVDb9YKLd/view",
        parts=(Part("static.zip", "static", ("fss", "DUTS-TR", "DUTS-TE"), "1wUJq3HcLdN-z1t4CsUhjeZ9BVDb9YKLd"),),
    ),
}
