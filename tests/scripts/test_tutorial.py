"""scripts/tutorial.ipynb runs in Jupyter's kernel, from the folder in which Jupyter opens it."""

import json

import nbformat
import pytest
from nbclient import NotebookClient

from conftest import ROOT, write_davis

NOTEBOOK = ROOT / "scripts" / "tutorial.ipynb"


@pytest.fixture
def executed(monkeypatch):
    """Execute the notebook with other values of its variables that are None; returns what one more cell prints."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def execute(last_cell: str, **values: object) -> str:
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        for name, value in values.items():
            (cell,) = (cell for cell in notebook.cells if f"{name} = None" in cell.source)
            cell.source = cell.source.replace(f"{name} = None", f"{name} = {str(value)!r}")
        notebook.cells.append(nbformat.v4.new_code_cell(last_cell))
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": NOTEBOOK.parent}}).execute()
        return notebook.cells[-1].outputs[0].text

    return execute


def test_a_drawn_clip_is_segmented_with_each_bank(executed):
    report = executed("""
import json
iou = {
    bank: float(np.mean([region_similarity(reference == each, np.stack(predicted) == each) for each in objects]))
    for bank, predicted in masks.items()
}
written = [read_mask(path).tolist() for path in sorted(output.iterdir())]
print(json.dumps([iou, len(truth), written == [ids.tolist() for ids in masks["2F+L+RDE"]]]))
""")
    iou, length, written = json.loads(report)
    assert list(iou) == ["2F+L+RDE", "F", "STM"] and len(set(iou.values())) == 3
    assert iou["2F+L+RDE"] > 0.75
    assert length == 40 and written


def test_a_clip_of_the_reader_takes_its_place(executed, tmp_path):
    base = write_davis(tmp_path, {"clip": 4}, nested=False)
    mask = base / "Annotations/480p/clip/00000.png"
    clip = {"FRAMES": base / "JPEGImages/480p/clip", "MASK": mask}
    report = executed("print([path.name for path in sorted(output.iterdir())], truth)", **clip)
    assert report.strip() == f"{[f'0000{t}.png' for t in range(4)]} []"
