import json
from dataclasses import replace

import pytest

from tests.train.toy import toy_run
from videodit.checkpoint.workdir import differences, prepare_workdir, read_config
from videodit.parallel.mesh import MeshConfig

RUN = toy_run()


def test_a_prepared_workdir_holds_the_run_and_where_it_ran(tmp_path):
    prepare_workdir(tmp_path / "a" / "b", RUN)
    assert read_config(tmp_path / "a" / "b") == RUN
    facts = json.loads((tmp_path / "a" / "b" / "provenance.json").read_text())
    assert facts["versions"]["jax"]
    assert len(facts["devices"]) == 8
    assert not list(tmp_path.rglob("*.part"))


def test_a_resumed_run_may_change_its_length_and_mesh_but_not_its_data_or_optimizer(tmp_path):
    prepare_workdir(tmp_path, RUN)
    longer = replace(RUN, steps=9, log_every=3, save_every=7, keep=5, mesh=MeshConfig(fsdp=2))
    longer = replace(longer, data=replace(RUN.data, num_threads=9))
    prepare_workdir(tmp_path, longer)
    assert read_config(tmp_path) == longer
    other = replace(RUN, data=replace(RUN.data, path="elsewhere"), optim=replace(RUN.optim, lr=3.0))
    messages = ["data.path is 'none' there and 'elsewhere' here", "optim.lr is 0.01 there and 3.0 here"]
    assert list(differences(RUN, other)) == messages
    with pytest.raises(ValueError, match=f"{tmp_path.name} holds another run: {'; '.join(messages)}"):
        prepare_workdir(tmp_path, other)


def test_a_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run's directory: it has no config.json"):
        read_config(tmp_path)
