"""What is asked for to try a newer vLLM; the trial itself needs a network: `make newest-vllm`."""

from pathlib import Path

from tests.newest_vllm import PINNED, lacking


def test_requirements_that_are_met_here_are_not_installed_again(tmp_path: Path):
    stated = tmp_path / "common.txt"
    stated.write_text(
        "# a comment\n-r other.txt\n\nnumpy\nnumpy >= 1 # with a reason\nnumpy >= 1000\nnone-of-ours[extra] >= 2, < 3\n"
        "none-elsewhere; sys_platform == 'none'\n"
    )
    assert list(lacking(stated)) == ["numpy>=1000", "none-of-ours<3,>=2"]
    assert str(PINNED).count(".") == 2
