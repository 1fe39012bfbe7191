"""What ``tam`` says when something is wrong: one line that names it, exit code 2, and nothing written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tam_backend import __version__
from tam_backend.cli import COMMANDS, main
from tests.cli.conftest import HEIGHT, WIDTH, masks_in, write_indexed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Files to be given as masks, good and bad."""
    root = tmp_path / "given"
    root.mkdir()
    rng = np.random.default_rng(0)
    write_indexed(root / "good.png", np.eye(HEIGHT, WIDTH))
    write_indexed(root / "two.png", np.eye(HEIGHT, WIDTH) + 2 * np.eye(HEIGHT, WIDTH, 3))
    write_indexed(root / "empty.png", np.zeros((HEIGHT, WIDTH)))
    write_indexed(root / "small.png", np.eye(HEIGHT, WIDTH - 1))
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(root / "photo.png")
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)).save(root / "grey.png")
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8).astype(np.uint16) * 256).save(root / "deep.png")
    Image.fromarray(np.eye(HEIGHT, WIDTH) > 0).convert("L").save(root / "photo.jpg")
    (root / "cut.png").write_bytes((root / "photo.png").read_bytes()[:-300])
    (root / "text.png").write_text("not a picture")
    (root / "none.png").write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "say what to track: --click FRAME,X,Y or --mask FRAME=PNG"),
        ("--click 0,5,5 --refine-masks", "--refine-masks goes with --mask FRAME=PNG"),
        ("--click 20,5,5", "--click 20,5,5: there is no frame 20, the video has frames 0 to 19"),
        ("--click 9,5,5 --end 8", "--click 9,5,5: frame 9 is not in the range --start 0 --end 8"),
        ("--click 0,32,5", "--click 0,32,5: click (32, 5) is outside the frame: x must be in [0, 32) and y in [0, 24)"),
        ("--click 0,5,24:3", "--click 0,5,24:3: click (5, 24) is outside the frame"),
        ("--click 0,-1,5", "--click 0,-1,5: click (-1, 5) is outside the frame"),
        ("--click 0,nan,5", "--click 0,nan,5: click (nan, 5) is outside the frame"),
        ("--click 0,5", "argument --click: '0,5' is not FRAME,X,Y[,-][:OBJECT], such as"),
        ("--click 0,5,5,x", "'0,5,5,x' is not FRAME,X,Y[,-][:OBJECT]"),
        ("--click 0,a,5", "'0,a,5' is not FRAME,X,Y[,-][:OBJECT]"),
        ("--click 1.5,5,5", "'1.5,5,5' is not FRAME,X,Y[,-][:OBJECT]"),
        ("--click=-1,5,5", "'-1,5,5' is not FRAME,X,Y[,-][:OBJECT]"),
        ("--click 0,5,5:0", "'0,5,5:0': the object is a number from 1 to 255, not 0"),
        ("--click 0,5,5:256", "'0,5,5:256': the object is a number from 1 to 255, not 256"),
        ("--click 0,5,5:car", "'0,5,5:car' is not FRAME,X,Y[,-][:OBJECT]"),
        ("--click 0,5,5,-", "object 1: negative clicks or empty masks alone do not say where it is"),
        ("--click 0,5,5 --click 3,5,5,-:2", "object 2: negative clicks or empty masks alone do not say where it is"),
        ("--mask 0={}/empty.png:4", "object 4: negative clicks or empty masks alone do not say where it is"),
        ("--mask {}/good.png", "/good.png' is not FRAME=PNG, such as 0=first.png"),
        ("--mask 0={}/good.png:999", "the object is a number from 1 to 255, not 999"),
        ("--mask 0={}/missing.png", "/missing.png: there is no file {}/missing.png"),
        ("--mask 0={}/missing.png:2", "there is no file {}/missing.png"),
        ("--mask 0={}", "{} cannot be read: Is a directory"),
        ("--mask 0={}/text.png", "{}/text.png cannot be read: it is damaged or no PNG"),
        ("--mask 0={}/none.png", "{}/none.png cannot be read: it is damaged or no PNG"),
        ("--mask 0={}/cut.png", "{}/cut.png cannot be read: it is damaged or no PNG"),
        ("--mask 0={}/photo.jpg", "{}/photo.jpg cannot be read: it is damaged or no PNG"),
        ("--mask 0={}/photo.png", "{}/photo.png is a colour or grey picture; a mask is an indexed PNG"),
        ("--mask 0={}/grey.png", "{}/grey.png is a colour or grey picture; a mask is an indexed PNG"),
        ("--mask 0={}/deep.png", "{}/deep.png is a colour or grey picture; a mask is an indexed PNG"),
        ("--mask 0={}/small.png", "/small.png: mask is 24x31 (height x width), the frame is 24x32"),
        ("--mask 0={}/empty.png", "{}/empty.png is empty; to say that an object is not on frame 0, name it"),
        ("--mask 0={}/two.png:1", "{}/two.png holds the objects 1, 2; leave out the number"),
        ("--mask 20={}/good.png", "/good.png: there is no frame 20"),
        ("--mask 0={}/good.png --mask 0={}/two.png", "/two.png: object 1 has another mask on frame 0"),
        (
            "--mask 0={}/good.png --click 0,5,5",
            "--click 0,5,5: object 1 has a mask on frame 0, which is the truth there",
        ),
        ("--click 0,5,5 --start 20", "--start 20: there is no such frame, the video has frames 0 to 19"),
        ("--click 0,5,5 --end 20", "--end 20: there is no such frame, the video has frames 0 to 19"),
        ("--click 0,5,5 --start -3", "--start -3: there is no such frame"),
        ("--click 0,5,5 --start 9 --end 3", "--start 9 is after --end 3"),
        ("--click 0,5,5 --start x", "argument --start: invalid int value: 'x'"),
        ("--click 0,5,5 --engine magic", "there is no engine 'magic'; known engines: auto, embedded, sam-xmem"),
        ("--click 0,5,5 --label 2=Dog", "--label 2=Dog: no object 2 is tracked, the objects are 1"),
        ("--click 0,5,5 --label Dog", "'Dog' is not OBJECT=NAME, such as 1=Person"),
        ("--click 0,5,5 --click 0,9,9:2 --label=1=A --label=2=A", "--label: objects 1 and 2 are both called 'A'"),
        ("--click 0,5,5 --from-name image", "--from-name image and --to-name image must differ from each other"),
        ("--click 0,5,5 --to-name point", "and --to-name point must differ from each other and from the other tags"),
        ("--click 0,5,5 --region-type polygon", "argument --region-type: invalid choice: 'polygon'"),
        ("--click 0,5,5 --fast", "unrecognized arguments: --fast"),
    ],
)
def test_bad_prompts_and_options(tam, video, given, tmp_path, arguments, message):
    result = tam("track", video, "--out", tmp_path / "out", *arguments.replace("{}", str(given)).split())
    assert (result.code, result.out) == (2, "")
    assert message.replace("{}", str(given)) in result.err
    assert result.err.startswith(("tam track: error: ", "tam: error: "))
    assert result.err.count("\n") == 1, "one line"
    assert not (tmp_path / "out").exists(), "nothing is made before everything is checked"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no file or folder"), (b"", "empty"), (b"text", "not a video"), ("folder", "has no images")],
)
def test_a_video_that_is_none(tam, tmp_path, content, message):
    path = tmp_path / "video.mp4"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    result = tam("track", path, "--click", "0,5,5", "--out", tmp_path / "out")
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_to_write_to_that_is_a_file(tam, video, engine, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        result = tam("track", video, "--click", "0,5,5", "--out", out)
        assert result.code == 2
        assert f"--out {out} cannot be written: " in result.err
        assert result.err.count("\n") == 1


def test_another_video_does_not_mix_with_what_is_there(tam, video, folder, engine, tmp_path):
    assert tam("track", video, "--click", "0,5,5", "--out", tmp_path).code == 0
    before = masks_in(tmp_path)
    result = tam("track", folder, "--click", "0,5,5", "--out", tmp_path)
    assert result.code == 2
    assert f"--out {tmp_path} has the masks of another video, tiny.mp4; choose another folder, or --force" in result.err
    assert masks_in(tmp_path) == before


def test_files_of_somebody_else_are_not_replaced(tam, video, engine, tmp_path):
    (tmp_path / "00003.png").write_text("precious")
    (tmp_path / "notes.txt").write_text("mine")
    call = ("track", video, "--click", "0,5,5", "--out", tmp_path)
    result = tam(*call)
    assert result.code == 2
    assert "has files that would be replaced (00003.png)" in result.err
    assert (tmp_path / "00003.png").read_text() == "precious"
    (tmp_path / "00099.png").write_text("not in the way")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "99999.jpg").write_text("mine, too")
    (tmp_path / "film.mp4.partial").write_text("somebody's download")
    assert tam(*call, "--force", "--pictures").code == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "00099.png").read_text() == "not in the way"
    assert (tmp_path / "frames" / "99999.jpg").read_text() == "mine, too"
    assert (tmp_path / "film.mp4.partial").read_text() == "somebody's download"


def test_a_folder_of_pictures_of_somebody_else_is_not_mixed_with_ours(tam, video, engine, tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "00000.jpg").write_text("mine")
    call = ("track", video, "--click", "0,5,5", "--out", tmp_path)
    result = tam(*call, "--pictures")
    assert result.code == 2
    assert "has files that would be replaced (frames)" in result.err
    assert tam(*call).code == 0
    assert (tmp_path / "frames" / "00000.jpg").read_text() == "mine"


def test_inputs_are_not_replaced(tam, video, folder, engine, given):
    result = tam("track", folder, "--click", "0,5,5", "--out", folder / ".." / folder.name, "--force")
    assert result.code == 2
    assert "is the folder of the frames; choose another one" in result.err
    result = tam("track", video, "--mask", f"0={given}/good.png", "--out", given, "--force")
    assert result.code == 2
    assert "the file is in the folder of --out" in result.err
    assert not (given / ".tam").exists()
    overlay = given / "overlay.mp4"
    overlay.write_bytes(video.read_bytes())
    result = tam("track", overlay, "--click", "0,5,5", "--out", given, "--force")
    assert result.code == 2
    assert "overlay.mp4 there is the video itself" in result.err
    assert overlay.read_bytes() == video.read_bytes()


def test_a_failure_while_writing_is_one_line(tam, video, engine, tmp_path):
    out = tmp_path / "out"
    engine.propagator.before_step = lambda frame: shutil.rmtree(out) if frame == 8 else None
    result = tam("track", video, "--click", "0,5,5", "--out", out)
    assert result.code == 1
    assert result.err.startswith("tam track: error: [Errno 2] No such file or directory: ")
    assert result.err.count("\n") == 1


# ---- help


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help(tam, arguments):
    result = tam(*arguments)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("usage: tam")


def test_help_shows_commands_and_examples_that_parse(tam):
    text = tam("--help").out
    assert all(re.search(rf"^    {name}\s", text, re.MULTILINE) for name in COMMANDS)
    assert "--version" in text
    text = tam("track", "--help").out
    for option in ("--click", "--mask", "--out", "--engine", "--start", "--end", "--overlay", "--force", "--label"):
        assert option in text
    examples = [line.split() for line in text.splitlines() if line.strip().startswith("tam track ")]
    assert len(examples) >= 5
    for words in examples:
        result = tam(*words[1:])
        # The files do not exist here; everything that can be wrong with the options comes before or instead.
        assert result.err == f"tam track: error: there is no file or folder {words[2].rstrip('/')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "tam: error: the following arguments are required: COMMAND"),
        (["fly"], "tam: error: argument COMMAND: invalid choice: 'fly'"),
        (["track"], "tam track: error: the following arguments are required: VIDEO_OR_FOLDER, --out"),
    ],
)
def test_commands_that_are_not_complete(tam, arguments, message):
    result = tam(*arguments)
    assert result.code == 2
    assert result.err.startswith(message)
    assert result.err.count("\n") == 1


def test_version(tam):
    assert tam("--version").out == f"tam {__version__}\n"


def test_ctrl_c_before_the_work_begins_is_one_line(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("tam_backend.commands.track.run", interrupted)
    assert main(["track", "x", "--out", "y"]) == 130
    assert capsys.readouterr().err == "tam track: stopped\n"


def test_tracking_imports_no_web_server_and_no_torch(video, tmp_path):
    """A person's own call, with the real engine, in a process of its own."""
    program = (
        "import sys; from tam_backend.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'flask', 'torch', 'waitress', 'label_studio_ml', 'requests'};"
        "print(sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "track", video, "--click", "0,17,17", "--out", tmp_path, "--end", "3",
         "--engine", "embedded"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "[]"
    assert len(masks_in(tmp_path)) == 4
