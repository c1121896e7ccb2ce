"""A flag without effect is refused by all scripts; tests/model/test_train.py has those of train.py."""

import argparse

import pytest

from conftest import assert_refused
from util.evaluation.arguments import add_engine_arguments, engine_settings, parse_engine_arguments

IDLE = [  # a command line, the flag without effect, and the reason
    ("eval_davis.py --davis_path D --output O --bank F --mem_every 3", "--mem_every", "--bank F"),
    ("eval_davis.py --davis_path D --output O --bank F --confirm_updates", "--confirm_updates", "--bank F"),
    ("eval_youtube.py --yv_path Y --output O --train_meta M", "--train_meta", "--gt"),
    ("scripts/eval_folder.py --images I --masks M --output O --bank F --mem_every 3", "--mem_every", "--bank F"),
    ("scripts/segment_video.py V --mask M --output O --bank F --mem_every 3", "--mem_every", "--bank F"),
    ("scripts/annotate.py V --bank F --mem_every 3", "--mem_every", "--bank F"),
    ("scripts/tables/long_video.py --davis_path D --output O --banks F STM --mem_every 3", "--mem_every", "--banks F"),
    ("scripts/tables/long_video.py --davis_path D --output O --banks F --confirm_updates", "--confirm_updates", "F"),
    ("scripts/tables/long_video.py --davis_path D --output O --banks F+L --stm_mem_every 3", "--stm_mem_every", "F+L"),
    ("scripts/check_data.py --stage 1 --bl_root B --yv_root Y", "--yv_root", "--stage 1"),
    ("scripts/check_data.py --stage 1 --bl_root B --davis_year 2016", "--davis_year", "DAVIS"),
    ("scripts/make_synthetic.py --output O --static 3 --leave 2", "--leave", "--davis_val"),
]


@pytest.mark.parametrize(("line", "idle", "reason"), IDLE)
def test_a_flag_without_effect_is_refused(inline, monkeypatch, tmp_path, line, idle, reason):
    monkeypatch.chdir(tmp_path)
    assert_refused(inline(*line.split()), f"{idle} has no effect", reason)
    assert not any(tmp_path.iterdir())


def test_the_flags_of_the_engine_reach_it(small_network):
    parser = argparse.ArgumentParser()
    add_engine_arguments(parser, mem_every=3)
    words = ["--bank", "F+L", "--mem_every", "2", "--top", "7", "--confirm_updates"]
    core = engine_settings(parse_engine_arguments(parser, words=words)).core(small_network)
    assert (core.memory.spec.first, core.memory.spec.latest, core.rule.mem_every, core.top_k) == (1, 1, 2, 7)
    assert core.confirm_updates and not engine_settings(parse_engine_arguments(parser, words=[])).confirm_updates
