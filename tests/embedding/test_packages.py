"""The encoders of optional packages, with weights made here; skipped without the package."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pmmo.core.errors import PmmoError
from pmmo.embedding import image as images
from pmmo.embedding import text as texts

CPU = torch.device("cpu")
PLOTS = ["A war, the War!", "zzz qqq"]
pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages


def package(name: str):
    """The package, or a skip: also where it was built for another torch, as torchvision's is."""
    try:
        return pytest.importorskip(name, reason=f"{name} is optional", exc_type=ImportError)
    except RuntimeError as error:
        pytest.skip(f"{name} does not load beside this torch: {error}")


def test_gensims_own_files(tmp_path):
    keyedvectors = package("gensim.models.keyedvectors")
    vectors = keyedvectors.KeyedVectors(3)
    vectors.add_vectors(["war", "War"], np.array([[1, 2, 3], [3, 2, 1]], "f4"))
    path = tmp_path / "words.kv"
    vectors.save(str(path), sep_limit=1)  # the table in a file of its own
    encoder = texts.gensim(str(path), lambda: PLOTS, CPU)
    found = encoder.encode(PLOTS)
    np.testing.assert_allclose(found[0], [2, 2, 2])
    assert np.isnan(found[1]).all()
    before = encoder.identity
    vectors.vectors[0] = 9
    vectors.save(str(path), sep_limit=1)
    assert texts.gensim(str(path), list, CPU).identity.sha256 != before.sha256
    path.write_bytes(b"no pickle")
    with pytest.raises(PmmoError, match="cannot be read as KeyedVectors of gensim"):
        texts.gensim(str(path), list, CPU)


def spacy_model(folder: Path, width: int) -> Path:
    spacy = package("spacy")
    nlp = spacy.blank("en")
    if width:
        nlp.vocab.reset_vectors(width=width)
        for word, number in (("war", 1.0), ("War", 3.0), (",", 100.0)):
            nlp.vocab.set_vector(word, np.full(width, number, "f4"))
    nlp.to_disk(folder)
    return folder


def test_a_spacy_model_in_a_folder(tmp_path):
    """The mean of the known words, without punctuation."""
    folder = spacy_model(tmp_path / "model", 4)
    encoder = texts.spacy(str(folder), list, CPU)
    found = encoder.encode(PLOTS)
    np.testing.assert_allclose(found[0], [2, 2, 2, 2])
    assert np.isnan(found[1]).all()
    assert encoder.width == 4
    assert encoder.identity.name.startswith("spacy:en_")


def test_spacy_models_that_cannot_serve(tmp_path):
    package("spacy")
    with pytest.raises(PmmoError, match="no package or folder has this name"):
        texts.spacy("en_core_web_none", list, CPU)
    with pytest.raises(PmmoError, match="this spaCy model has no word vectors"):
        texts.spacy(str(spacy_model(tmp_path / "model", 0)), list, CPU)
    (tmp_path / "model/config.cfg").unlink()
    with pytest.raises(PmmoError, match="cannot be loaded as a spaCy model"):
        texts.spacy(str(tmp_path / "model"), list, CPU)


@pytest.fixture
def offline(monkeypatch):
    """As the command has it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")


def test_a_sentence_transformers_folder(tmp_path, offline):
    """A bag of words: its vectors are counts of known words."""
    package("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import BoW

    SentenceTransformer(modules=[BoW(vocab=["war", "love"])], device="cpu").save(
        str(tmp_path / "m")
    )
    encoder = texts.sentence_transformers(str(tmp_path / "m"), list, CPU)
    theirs = SentenceTransformer(str(tmp_path / "m"), device="cpu").encode(PLOTS)
    np.testing.assert_array_equal(encoder.encode(PLOTS), theirs)
    assert encoder.width == 2
    (tmp_path / "m/modules.json").write_text("no JSON")
    with pytest.raises(PmmoError, match="cannot be loaded as a sentence-transformers folder"):
        texts.sentence_transformers(str(tmp_path / "m"), list, CPU)


def posters() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 90, 60, 3), dtype=np.uint8)
    return [Image.fromarray(image) for image in pixels]


def test_timm_gives_the_layer_before_its_classifier(tmp_path):
    timm = package("timm")
    model = timm.create_model("test_resnet", pretrained=False, num_classes=7).eval()
    path = tmp_path / "w.safetensors"
    save_file(model.state_dict(), path)
    encoder = images.timm(f"test_resnet:{path}", CPU)
    batch = [encoder.prepare(image) for image in posters()]
    with torch.no_grad():
        theirs = model.forward_head(model.forward_features(torch.stack(batch)), pre_logits=True)
    np.testing.assert_allclose(encoder.encode(batch), theirs.numpy(), rtol=1e-5, atol=1e-6)
    assert encoder.width == theirs.shape[1]
    assert encoder.identity.name == "timm:test_resnet"
    for name, said in (
        ("test_vit", "is not of this model"),
        ("none", r"has no model 'none'\. Check the name"),
    ):
        with pytest.raises(PmmoError, match=said):
            images.timm(f"{name}:{path}", CPU)


def test_torchvision_gives_the_layer_before_its_last_linear_one(tmp_path):
    models = package("torchvision").models
    model = models.get_model("resnet18", weights=None).eval()
    path = tmp_path / "w.pth"
    torch.save(model.state_dict(), path)
    encoder = images.torchvision(f"resnet18:{path}", CPU)
    batch = [encoder.prepare(image) for image in posters()]
    assert encoder.width == 512
    with torch.no_grad():
        logits = model(torch.stack(batch))
        ours = model.fc(torch.from_numpy(encoder.encode(batch)))
    torch.testing.assert_close(ours, logits)
    with pytest.raises(PmmoError, match=r"torchvision .* has no model 'none'"):
        images.torchvision(f"none:{path}", CPU)
    with pytest.raises(PmmoError, match="has no linear layer at its end"):
        images.torchvision(f"squeezenet1_1:{path}", CPU)


def test_vgg16_gives_the_published_features_layer():
    """4,096 numbers after the second ReLU: 3.1 of the GMU paper."""
    models = package("torchvision").models
    with torch.device("meta"):
        model = models.get_model("vgg16", weights=None)
    linear = [key for key, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    assert linear[-1] == "classifier.6"
    assert isinstance(model.classifier[4], torch.nn.ReLU)
    assert model.classifier[6].in_features == 4096
