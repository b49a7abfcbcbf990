"""Adam in one pass over memory. This module imports Keras: import it inside functions."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class FusedAdam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam in one pass over memory: TensorFlow's own kernel, where Keras' steps are ten passes.

    Other backends take Keras' own steps, which JAX compiles into one.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move a variable and its two moments."""
        if keras.backend.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        from tensorflow import raw_ops

        number = self._get_variable_index(variable)
        count = ops.cast(self.iterations + 1, variable.dtype)
        beta1, beta2 = (ops.cast(b, variable.dtype) for b in (self.beta_1, self.beta_2))
        raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[number].value.handle,
            v=self._velocities[number].value.handle,
            beta1_power=ops.power(beta1, count),
            beta2_power=ops.power(beta2, count),
            lr=ops.cast(learning_rate, variable.dtype),
            beta1=beta1,
            beta2=beta2,
            epsilon=ops.cast(self.epsilon, variable.dtype),
            grad=gradient,
        )
