"""Callbacks written once for both Keras, and those that write summaries for TensorBoard."""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Any

from wrpn_tf.keras_flavor import flavor_of, get_flavor


class FlavoredCallback:
    """A callback whose class is made for the Keras of the model that it is given first.

    Raises:
        TypeError: If the model belongs to neither Keras.
    """

    def __new__(cls, model: Any = None, *args: Any, **kwargs: Any) -> FlavoredCallback:
        """Makes the class of the model's Keras."""
        del args, kwargs
        return super().__new__(_with_keras(cls, flavor_of(model).name))


class TensorBoardCallback(FlavoredCallback):
    """Writes a run of summaries, at the end of epochs; what it writes is its subclasses'.

    Args:
        log_dir: The folder of the run.
        freq: Write after every so many epochs.

    Raises:
        ImportError: If TensorBoard is not installed: TensorFlow writes no summaries without it.
        ValueError: If `freq` is no positive whole number.
    """

    def __init__(self, log_dir: str | os.PathLike, freq: int):
        super().__init__()
        if importlib.util.find_spec("tensorboard") is None:
            name = type(self).__name__
            raise ImportError(f"{name} needs TensorBoard: pip install tensorboard.")
        self.log_dir = log_dir
        self.freq = check_freq(freq)
        self._writer: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the file."""
        del logs
        import tensorflow as tf

        self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes, if it is the epoch's turn."""
        if epoch % self.freq:
            return
        import tensorflow as tf

        # Whatever the user has set, as the caller of this callback asked for all that it writes.
        with self._writer.as_default(step=epoch), tf.summary.record_if(True):
            self.write(tf.summary, dict(logs or {}))

    def on_train_end(self, logs: Any = None) -> None:
        """Closes the file."""
        del logs
        self._writer.close()

    def write(self, summary: Any, logs: dict[str, Any]) -> None:
        """Writes one epoch.

        Args:
            summary: TensorFlow's `tf.summary`, its step set.
            logs: The epoch's metrics.
        """
        raise NotImplementedError


def check_freq(freq: int) -> int:
    """Returns `freq`.

    Raises:
        ValueError: If it is no positive whole number.
    """
    if isinstance(freq, bool) or not isinstance(freq, int) or freq < 1:
        raise ValueError(f"`freq` must be a whole number >= 1, got {freq!r}.")
    return freq


@functools.cache
def _with_keras(cls: type, flavor_name: str) -> type:
    """The class with a Keras' own callback as its base."""
    return type(cls.__name__, (cls, get_flavor(flavor_name).keras.callbacks.Callback), {})
