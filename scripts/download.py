"""Download weights and data sets, put them into the layout of the scripts, and check them.

    python scripts/download.py weights davis2017
    python scripts/download.py davis2016 static --root /data --yes
    python scripts/download.py youtube2019

Everything lies below one folder (--root, default data): weights/, DAVIS/2016, DAVIS/2017, YouTube, BL30K, static, and
archives/ with the archives as downloaded. You may delete archives/ at the end.

The same command resumes interrupted downloads. Existing files are not downloaded again, but they are checked again.
YouTube-VOS and BL30K need a browser: the script prints which archives to save in archives/, and the same command then
unpacks and checks them. You may save any other archive there, too. The checks are those of scripts/check_data.py;
weights are loaded. Where Google Drive refuses the weights, their second publication on ModelScope takes their place:
weights/pytorch_model.pt.

The exit code is 0 if everything is in place without problems, 1 if the check finds problems or if you answer no, and 2
after an error.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from downloads.catalogue import ARCHIVES, CATALOGUE, DataSet, Part
from downloads.checks import check_targets
from downloads.fetch import address, fetch
from downloads.unpack import file_path, is_in_place, put_in_place
from model import load_network
from util.errors import InputError, command_line


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    names = "\n".join(f"  {name:<12} {data_set.title}" for name, data_set in CATALOGUE.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nnames:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="+", choices=list(CATALOGUE), metavar="NAME", help="what to download")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of all downloads (default: data)")
    parser.add_argument("--yes", action="store_true", help="accept the licences without asking")
    parser.add_argument(
        "--mirror",
        type=web_address,
        metavar="URL",
        help="download URL/<file name> instead of the original addresses; the script prints the file names",
    )
    return parser.parse_args()


def web_address(text: str) -> str:
    """A type for argparse: an address that starts with http:// or https://."""
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} does not start with http:// or https://")
    return text


def missing_parts(data_set: DataSet, root: Path) -> list[Part]:
    """Return the parts that are neither in place nor saved as archives."""
    return [part for part in data_set.parts if not is_in_place(root, part) and not file_path(root, part).exists()]


def describe(name: str, root: Path, mirror: str | None) -> None:
    """Print the licence of a data set, and the location or the source of each part."""
    data_set = CATALOGUE[name]
    print(f"{name}: {data_set.title}\n  licence: {data_set.licence}")
    missing = missing_parts(data_set, root)
    for part in data_set.parts:
        source, path = address(part, mirror), file_path(root, part)
        if is_in_place(root, part):
            state = f"{root / part.target if part.holds else path} is already there"
        elif part not in missing:
            state = f"{path} will be unpacked"
        elif source is not None:
            state = f"will be downloaded from {source}"
        else:
            state = f"download it by hand from {data_set.homepage} and save it as {path}"
        print(f"  {part.name}{'' if part.required else ' (not required)'}: {state}")
    if data_set.substitute is not None:
        print(f"  {data_set.substitute.name}, in place of what is refused: {address(data_set.substitute, mirror)}")


def confirm() -> None:
    """Ask whether to download on these terms; "no" ends the script."""
    if not sys.stdin.isatty():
        raise InputError("there is no terminal to ask whether you accept the licences; give --yes if you do")
    try:
        answer = input("Download on these terms? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        sys.exit("nothing was downloaded")


def obtain_weights(data_set: DataSet, root: Path, mirror: str | None) -> None:
    """Download checkpoints, and load each of them. The data set's substitute replaces what cannot be had.

    A downloaded file that cannot be loaded is deleted.
    """
    refused = []
    for part in data_set.parts:
        try:
            _obtain_checkpoint(part, root, mirror)
        except InputError as error:
            print(f"{error}\ntrying {address(data_set.substitute, mirror)}")
            refused.append(part.name)
    if refused:
        _obtain_checkpoint(data_set.substitute, root, mirror)
        print(f"{file_path(root, data_set.substitute)} takes the place of {' and '.join(refused)}")


def _obtain_checkpoint(part: Part, root: Path, mirror: str | None) -> None:
    path = file_path(root, part)
    was_there = path.exists()
    obtain(part, root, mirror)
    try:
        load_network(path)
    except InputError:
        if not was_there:
            path.unlink()
        raise
    print(f"{path}: can be loaded")


def obtain(part: Part, root: Path, mirror: str | None) -> bool:
    """Download a part if necessary, and put it in place. Return False if it must be downloaded by hand."""
    if is_in_place(root, part):
        return True
    path = file_path(root, part)
    if not path.exists():
        if address(part, mirror) is None:
            return False
        if not fetch(part, path, mirror):
            print(f"{address(part, mirror)} does not exist; it is not required")
            return False
    if part.holds:
        put_in_place(root, part)
    return True


def provide(name: str, root: Path, mirror: str | None) -> tuple[bool, list[str]]:
    """Put all available parts of a data set in place, and check them.

    Return whether the check found no problem, and a sentence for each required file that must be downloaded by hand.
    """
    data_set = CATALOGUE[name]
    if data_set.substitute is not None:
        obtain_weights(data_set, root, mirror)
        return True, []
    targets: dict[str, None] = {}
    lacking: list[str] = []
    for part in data_set.parts:
        if obtain(part, root, mirror):
            targets[part.target] = None
        elif part.required:
            lacking.append(f"{file_path(root, part)} is missing; save it by hand, see {data_set.homepage}")
    faultless = check_targets(root, list(targets))
    if data_set.next_step and not lacking:
        print(data_set.next_step.format(root=root))
    return faultless, lacking


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    root, mirror = arguments.root, arguments.mirror
    names = list(dict.fromkeys(arguments.names))
    for name in names:
        describe(name, root, mirror)
    missing = [part for name in names for part in missing_parts(CATALOGUE[name], root)]
    if not arguments.yes and any(address(part, mirror) for part in missing):
        confirm()
    results = [provide(name, root, mirror) for name in names]
    lacking = [sentence for _, sentences in results for sentence in sentences]
    if lacking:
        more = f" ({len(lacking)} such files)" if len(lacking) > 1 else ""
        raise InputError(f"{lacking[0]}, and run the same command again{more}")
    if not all(faultless for faultless, _ in results):
        sys.exit(1)
    if (root / ARCHIVES).is_dir():
        print(f"{root / ARCHIVES} is no longer needed")


if __name__ == "__main__":
    main()
