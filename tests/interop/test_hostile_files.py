"""Files that are damaged or hostile: a clear error each, nothing run, nothing crashed, no memory asked for."""

import io
import json
import os
import pickle
import random
import resource
import struct
import zipfile

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from edm_reference import DDPMPP, built, snapshot
from foreign_models import SMALL
from recorded_models import drawn, recorded
from safetensors.torch import load_file, save_file

import snowmelt
from snowmelt.base.errors import SnowmeltError
from snowmelt.interop.files import load_weights

TOLD = {"size": (8, 8), "schedule": "linear", "noise_levels": 1000, "head_channels": 16, "qkv": "new"}
MOST_KILOBYTES = 300_000  # that the process may grow by over all mutations


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, loot):
        self.loot = loot

    def __reduce__(self):
        return os.mkdir, (str(self.loot),)


@pytest.fixture
def loot(tmp_path):
    return tmp_path / "loot"


def traps(loot):
    """Hostile files as bytes, by name: plain pickles, and torch's archives with a pickle of our making."""
    trap = Trap(loot)
    stored, legacy, both = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(trap, stored)
    torch.save({"conv_in.weight": trap}, legacy, _use_new_zipfile_serialization=False)
    torch.save({**drawn(recorded()["adm-new"]["shapes"]), "z": trap}, both)
    return {
        "plain pickle": pickle.dumps(trap),
        "a dictionary": pickle.dumps({"time_embed.0.weight": trap}),
        "torch's archive": stored.getvalue(),
        "torch's old form": legacy.getvalue(),
        "among good weights": both.getvalue(),
    }


TRAPS = ["plain pickle", "a dictionary", "torch's archive", "torch's old form", "among good weights"]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".pkl"])
@pytest.mark.parametrize("name", TRAPS)
def test_a_pickle_that_would_make_a_folder_is_refused_and_makes_none(name, suffix, loot, tmp_path):
    file = tmp_path / f"model{suffix}"
    file.write_bytes(traps(loot)[name])
    with pytest.raises(SnowmeltError):
        snowmelt.load(file, told=TOLD)
    assert not loot.exists()


def with_pickle(path, pickled):
    """A file of torch's with another pickle in it."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)
    return path


def test_a_few_bytes_do_not_become_gigabytes(tmp_path):
    large = b"\x80\x02}X\x01\x00\x00\x00acbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85Rs."
    path = with_pickle(tmp_path / "model.pt", large)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SnowmeltError, match="other things than weights"):
        load_weights(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_lists_that_name_one_another_a_thousand_times_are_walked_once(tmp_path):
    nested = []
    for _ in range(7):
        nested = [nested] * 1000
    path = with_pickle(tmp_path / "model.pt", pickle.dumps({"a": nested}, protocol=2))
    assert set(load_weights(path)) == {"a"}


@pytest.mark.parametrize("name", TRAPS[:4])
def test_the_traps_would_have_worked(name, loot, tmp_path):
    content = traps(loot)[name]
    if name.startswith("torch"):
        torch.load(io.BytesIO(content), weights_only=False)
    else:
        pickle.loads(content)
    assert loot.is_dir()


@pytest.mark.parametrize("name", TRAPS)
def test_a_hostile_pickle_in_a_pipelines_place_is_refused(name, loot, tmp_path):
    folder = tmp_path / "theirs"
    DDPMPipeline(UNet2DModel(**SMALL), DDPMScheduler()).save_pretrained(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(traps(loot)[name])
    with pytest.raises(SnowmeltError, match="was not opened"):
        snowmelt.load(folder)
    assert not loot.exists()


SMALL_EDM = {**DDPMPP, "img_resolution": 8, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_trap_in_a_snapshot_of_edm_is_named_and_makes_nothing(protocol, loot, tmp_path):
    file = snapshot(tmp_path / "network-snapshot-000000.pkl", built(**SMALL_EDM), protocol, loss_fn=Trap(loot))
    with pytest.raises(SnowmeltError, match=r"asks for '(posix|nt).mkdir'(.|\n)*nothing was run"):
        snowmelt.load(file)
    assert not loot.exists()


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.load", "torch.hub.load", "numpy.load"])
def test_names_that_load_or_run_are_refused_wherever_they_stand(name, tmp_path):
    module, attribute = name.rsplit(".", 1)
    ask = b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"
    for content in (b"\x80\x02" + ask + b".", b"\x80\x02}X\x03\x00\x00\x00ema" + ask + b")Rs."):
        (tmp_path / "net.pkl").write_bytes(content)
        with pytest.raises(SnowmeltError, match=f"asks for '{name}'"):
            snowmelt.load(tmp_path / "net.pkl")


def text(value):
    """A text in a pickle."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def module_with(attributes):
    """A snapshot whose network is a module with these attributes, of which each is a part of a pickle."""

    def rebuilt(kind, inside):
        meta = text("class_name") + text(kind) + text("state") + b"}(" + inside + b"u"
        return b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}(" + meta + b"u\x85R"

    attributes = {"_modules": b"}" + text("model") + rebuilt("SongUNet", b"") + b"s", **attributes}
    inside = b"".join(text(name) + value for name, value in attributes.items())
    return b"\x80\x02}" + text("ema") + rebuilt("EDMPrecond", inside) + b"s."


LONG = text("x" * 1_000_000) + b"q\x01"
LEAF = b"ctorch.nn.modules.linear\nLinear\n)\x81q\x02"
BOMBS = {
    "a place in the memory far away": b"\x80\x02}r\xff\xff\xff\x7f.",
    "bytes that are not there": b"\x80\x04B\xff\xff\xff\x7f",
    "more bytes than there can be": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    "a frame of all memory": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
    "a number of a gigabyte": b"\x80\x02\x8b\xff\xff\xff\x3f",
    "lists within lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "tuples within tuples, as a key": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
    "doubled and doubled": b"\x80\x02)" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(100)) + b".",
    "a setting of one text many times": module_with(
        {"_init_kwargs": b"}" + text("embedding_type") + b"](" + LONG + b"h\x01" * 9000 + b"es"}
    ),
    "a setting of lists that hold the last twice": module_with(
        {"_init_kwargs": b"}" + text("embedding_type") + b"]q\x02" + b"0](h\x02h\x02eq\x02" * 100 + b"s"}
    ),
    "a number of a kind that is doubled and doubled": module_with(
        {
            "_init_kwargs": b"}"
            + text("dropout")
            + b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n("
            + b")"
            + b"".join(b"q%ch%c\x86" % (n, n) for n in range(60, 100))
            + b"t\x85R"
            + b"C\x00tR"
            + b"s"
        }
    ),
    "modules of one long name": module_with({"_modules": b"}(" + LONG + LEAF + b"u"}),
    "modules that hold the last many times": module_with(
        {
            "_modules": LEAF
            + b"".join(
                b"0ctorch.nn.modules.linear\nLinear\n)\x81}"
                + text("_modules")
                + b"}("
                + b"".join(text(str(n)) + b"h\x02" for n in range(50))
                + b"usbq\x02"
                for _ in range(10)
            )
            + b"0}"
            + text("model")
            + b"h\x02s"
        }
    ),
    "too many instructions": b"\x80\x02" + b"N0" * 600_000 + b"}.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_pickle_cannot_ask_for_much(name, tmp_path):
    (tmp_path / "net.pkl").write_bytes(BOMBS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SnowmeltError) as refused:
        snowmelt.load(tmp_path / "net.pkl")
    assert ("more than 1,000,000 instructions" in str(refused.value)) == (name == "too many instructions")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KILOBYTES


def test_a_whole_number_that_is_no_float_is_a_wrong_setting(tmp_path):
    DDPMPipeline(UNet2DModel(**SMALL), DDPMScheduler()).save_pretrained(tmp_path)
    config = tmp_path / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "norm_eps": 10**400}))
    with pytest.raises(SnowmeltError, match="norm_eps is 1000"):
        snowmelt.load(tmp_path)


def test_weights_that_are_not_in_a_snapshot_are_refused(tmp_path):
    """Tensors as large as they claim cost nothing to claim: views that repeat, and one storage under many names."""
    net = built(**SMALL_EDM)
    net.model.map_layer0.weight.data = torch.zeros(1).expand(10**6, 10**6)
    with pytest.raises(SnowmeltError, match=r"map_layer0\.weight is a tensor of shape .* that is not there"):
        snowmelt.load(snapshot(tmp_path / "view.pkl", net))
    net = built(**SMALL_EDM)
    one = torch.zeros(300_000)
    for number in range(10):
        net.model.map_layer0.register_buffer(f"copy{number}", one)
    with pytest.raises(SnowmeltError, match="bytes of weights and holds"):
        snowmelt.load(snapshot(tmp_path / "many.pkl", net))


def test_the_command_line_refuses_it_with_code_2(snowmelt, loot, tmp_path):
    (tmp_path / "model.pt").write_bytes(traps(loot)["torch's archive"])
    for command in (("convert", tmp_path / "model.pt", tmp_path / "out"), ("sample", tmp_path / "model.pt")):
        answer = snowmelt(*command)
        assert answer.code == 2
        assert "which can run any code" in answer.err
    assert not loot.exists()
    assert not (tmp_path / "out").exists()


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    file = tmp_path / "bomb.pt"
    torch.save(torch.zeros(1), file)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data/9", bytes(50_000_000))
    with pytest.raises(SnowmeltError, match="claims 50,"):
        load_weights(file)


def test_views_that_are_larger_than_their_memory_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "view.pt")
    with pytest.raises(SnowmeltError, match="that is not there"):
        load_weights(tmp_path / "view.pt")
    one = torch.zeros(1000)
    torch.save({f"a{n}": one for n in range(100)}, tmp_path / "many.pt")
    with pytest.raises(SnowmeltError, match="names 400,000 bytes"):
        load_weights(tmp_path / "many.pt")


def test_a_safetensors_header_that_claims_the_world_is_refused(tmp_path):
    for length in (2**63, 2**40, 10**9):
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}" * 100)
        with pytest.raises(SnowmeltError, match="not a whole safetensors file"):
            snowmelt.load(tmp_path / "model.safetensors")
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(SnowmeltError, match="not a whole safetensors file"):
        snowmelt.load(tmp_path / "model.safetensors")


# Mutations. What is left readable may be read: a model whose weights differ in a bit is a model.

WORDS = [b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b'"x"', b"9" * 20, b"true", b"[[[[[[[[", b"\x00\xff"]
VALUES = [None, True, -1, 0, 1, 2**31, 10**30, 0.5, 1e308, float("nan"), "x", "", [], [1], [-1, 10**9], {}, {"a": []}]


def mutated_bytes(content, chance):
    """A few changes: bytes altered, cut, doubled, or replaced by words that JSON takes."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        # Most of the file is numbers; what can go wrong lies at its beginning.
        place = chance.randrange(min(len(changed), chance.choice([8, 400, 4000, len(changed)])) or 1)
        kind = chance.randrange(5)
        if kind == 0:
            changed[place] = chance.randrange(256)
        elif kind == 1:
            changed = changed[:place]
        elif kind == 2:
            changed[place : place + chance.randrange(1, 60)] = b""
        elif kind == 3:
            changed[place:place] = changed[place : place + chance.randrange(1, 200)]
        else:
            changed[place : place + chance.randrange(1, 12)] = chance.choice(WORDS)
        if not changed:
            break
    return bytes(changed)


def mutated_json(content, chance):
    """A config in which some value is another, missing, or deeper."""
    values = json.loads(content)
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(list(values) or ["x"])
        if chance.random() < 0.2:
            values.pop(name, None)
        else:
            values[name] = chance.choice(VALUES)
    return json.dumps(values).encode()


def mutated_archive(content, chance):
    """torch's archive with a few changes in its pickle, and checksums that are right."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(changed, "w") as after:
        for member in before.infolist():
            inner = before.read(member)
            after.writestr(member, mutated_bytes(inner, chance) if member.filename.endswith("data.pkl") else inner)
    return changed.getvalue()


def mutated_words(content, chance):
    """A pickle in which names and small numbers are others: it is whole, and says something else."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        word = chance.choice(
            [b"model", b"weight", b"_modules", b"_parameters", b"16x16", b"8x8", b"K\x08", b"K\x00", b"h"]
        )
        places = [place for place in range(len(changed)) if changed[place : place + len(word)] == word]
        if places:
            place = chance.choice(places) + chance.randrange(len(word))
            changed[place] = chance.choice([changed[place] ^ 1, chance.randrange(256), 0x29, 0x7D])
    return bytes(changed)


@pytest.fixture
def victims(tmp_path):
    """(a file, how it is changed, a function that reads the model it belongs to): one of each kind."""
    folder = tmp_path / "theirs"
    DDPMPipeline(UNet2DModel(**SMALL), DDPMScheduler()).save_pretrained(folder)
    unet, scheduler = folder / "unet" / "config.json", folder / "scheduler" / "scheduler_config.json"
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    single = tmp_path / "single.safetensors"
    texts = {"config": unet.read_text(), "scheduler_config": scheduler.read_text()}
    save_file(load_file(weights), single, texts)
    adm, adm_pt = tmp_path / "adm.safetensors", tmp_path / "adm.pt"
    tensors = drawn(recorded()["adm-legacy"]["shapes"])
    save_file(tensors, adm)
    torch.save(tensors, adm_pt)
    edm = snapshot(tmp_path / "network-snapshot-000000.pkl", built(**SMALL_EDM))
    lucid = tmp_path / "model-1.pt"
    buffers = {key: torch.tensor(values) for key, values in recorded()["lucidrains-full"]["buffers"].items()}
    torch.save({**drawn(recorded()["lucidrains-full"]["shapes"]), **buffers}, lucid)
    return [
        (unet, mutated_json, lambda: snowmelt.load(folder)),
        (unet, mutated_bytes, lambda: snowmelt.load(folder)),
        (scheduler, mutated_json, lambda: snowmelt.load(folder)),
        (scheduler, mutated_bytes, lambda: snowmelt.load(folder)),
        (weights, mutated_bytes, lambda: snowmelt.load(folder)),
        (single, mutated_bytes, lambda: snowmelt.load(single)),
        (adm, mutated_bytes, lambda: snowmelt.load(adm, told={**TOLD, "qkv": "legacy"})),
        (adm_pt, mutated_bytes, lambda: snowmelt.load(adm_pt, told={**TOLD, "qkv": "legacy"})),
        (adm_pt, mutated_archive, lambda: snowmelt.load(adm_pt, told={**TOLD, "qkv": "legacy"})),
        (lucid, mutated_bytes, lambda: snowmelt.load(lucid, told={"size": (8, 8)})),
        (lucid, mutated_archive, lambda: snowmelt.load(lucid, told={"size": (8, 8)})),
        (edm, mutated_bytes, lambda: snowmelt.load(edm)),
        (edm, mutated_words, lambda: snowmelt.load(edm)),
    ]


def survive(victims, count, seed):
    """Read `count` mutated files; returns how many were refused."""
    chance = random.Random(seed)
    originals = [file.read_bytes() for file, _, _ in victims]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for number in range(count):
        place = number % len(victims)
        (file, mutated, load), original = victims[place], originals[place]
        content = mutated(original, chance)
        file.write_bytes(content)
        try:
            load()
        except SnowmeltError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"mutation {number} of {file.name}: {type(error).__name__} {error}") from error
        finally:
            file.write_bytes(original)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MOST_KILOBYTES, f"{grown} kB"
    return refused


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_mutated_files_are_refused_or_read_and_nothing_else(victims):
    for _, _, load in victims:
        load()  # what is mutated can be read
    assert survive(victims, 312, seed=0) > 156


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_ten_thousand_mutated_files_are_refused_or_read_and_nothing_else(victims):
    assert survive(victims, 10_000, seed=1) > 5_000
