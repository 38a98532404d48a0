"""The examples' data: splits, augmentation, files, refusals."""

from __future__ import annotations

import pickle
import urllib.error

import keras
import numpy as np
import pytest

from examples import datasets


@pytest.fixture
def few() -> datasets.Dataset:
    """Five images of 2x3 pixels that can be told apart, black around."""
    images = np.arange(1, 31, dtype=np.float32).reshape(5, 2, 3, 1) / 30
    labels = np.arange(5, dtype=np.int32)
    return datasets.Dataset("few", "", images, labels, images, labels, max_shift=1, flip=True)


def test_digits_are_split_in_order():
    data = datasets.load("digits")
    assert data.x_train.shape == (1000, 8, 8, 1)
    assert data.x_test.shape == (797, 8, 8, 1)
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)
    assert data.y_train[:10].tolist() == list(range(10))  # scikit-learn's first rows


def test_cifar10_is_read_from_its_files(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for index, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        pixels = np.full((2, 3 * 32 * 32), index, np.uint8)
        pixels[:, 0], pixels[:, 1024 + 1] = 51, 102  # red at (0, 0), green at (0, 1)
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": [index, 9]}))
    for data_dir in (tmp_path, folder):
        data = datasets.load("cifar10", str(data_dir))
        assert data.x_train.shape == (10, 32, 32, 3)
        assert data.y_train.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
        assert data.y_test.tolist() == [5, 9]
        np.testing.assert_array_equal(
            data.x_test[0, 0, 0], np.float32([51, 5, 5]) / np.float32(255)
        )
        np.testing.assert_array_equal(
            data.x_test[0, 0, 1], np.float32([5, 102, 5]) / np.float32(255)
        )


def test_missing_cifar10_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="without data_batch_1"):
        datasets.load("cifar10", str(tmp_path))


@pytest.mark.parametrize(("name", "data_dir"), [("cifar10", None), ("digits", "somewhere")])
def test_data_dir_is_for_cifar10_only(name, data_dir):
    with pytest.raises(ValueError, match="`data_dir` must be given for cifar10 and only for it"):
        datasets.load(name, data_dir)


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match="`dataset` must be one of digits, cifar10"):
        datasets.load("mnist")


def test_failed_download_is_a_clear_error(monkeypatch):
    def fail():
        try:
            raise urllib.error.URLError("no network")
        except urllib.error.URLError:
            raise Exception("URL fetch failure")  # noqa: B904 - as Keras does

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", fail)
    with pytest.raises(ConnectionError, match="could not download Fashion-MNIST"):
        datasets.load("fashion_mnist")


def test_batches_are_shifted_and_mirrored_training_images(few):
    allowed = {}
    for image, label in zip(few.x_train[..., 0], few.y_train, strict=True):
        padded = np.pad(image, 1)
        windows = [padded[i : i + 2, j : j + 3] for i in range(3) for j in range(3)]
        allowed[label] = [w for window in windows for w in (window, window[:, ::-1])]
    seen = set()
    for _ in range(20):
        for images, labels in few.training_batches(2, seed=0):
            for image, label in zip(images.numpy()[..., 0], labels.numpy(), strict=True):
                assert any(np.array_equal(image, other) for other in allowed[label])
                seen.add(int(label))
    assert seen <= set(range(5))


def test_batches_repeat_with_the_seed_and_differ_between_epochs(few):
    def epochs(seed):
        batches = few.training_batches(2, seed)
        return [np.concatenate([x for x, _ in batches.as_numpy_iterator()]) for _ in range(2)]

    first, again, other = epochs(0), epochs(0), epochs(1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


def test_number_of_batches_is_known(few):
    assert len(few.training_batches(2, seed=0)) == 5 // 2


def test_batch_larger_than_the_training_set_is_refused(few):
    with pytest.raises(ValueError, match="`batch_size` must be at most 5"):
        few.training_batches(6, seed=0)


def test_nothing_tunes_the_batches(few):
    # TensorFlow's tuner holds up the end of an epoch: three seconds became five, one minute two.
    assert few.training_batches(2, seed=0).options().autotune.enabled is False


def test_epochs_as_arrays_are_those_of_the_batches(few):
    batches = few.training_batches(2, seed=3)
    rng = np.random.default_rng(3)
    for _ in range(2):
        for arrays, tensors in zip(few.epoch(2, rng), batches, strict=True):
            for own, expected in zip(arrays, tensors, strict=True):
                np.testing.assert_array_equal(own, expected)


def test_first_keeps_the_test_set(few):
    part = few.first(3)
    assert part.y_train.tolist() == [0, 1, 2]
    assert part.y_test.tolist() == [0, 1, 2, 3, 4]
