# SPDX-License-Identifier: Apache-2.0
"""A process and its child, for the command `forksafe` to look at: pools.py LIBRARY SITUATION

LIBRARY has a thread pool, or takes a lock of Python; libraries() has a function for each. SITUATION:
    both    the parent uses the library, then a child uses it again and again
    own     only the child uses the library
    pipe    the parent uses the library, then a child waits for a pipe
    flight  the parent forks while another of its threads uses the library, until a child gets stuck
The program prints "ready" when the child has answered. If the child is stuck, it never prints that.
"""
import importlib
import os
import sys
import threading
import time


def polars():
    import polars as pl
    frame = pl.DataFrame({"key": [i % 7 for i in range(100_000)], "value": range(100_000)})
    return lambda: frame.lazy().group_by("key").agg(pl.col("value").sum()).collect()


def opencv():
    import cv2
    import numpy as np
    cv2.setNumThreads(3)
    image = np.random.default_rng(1).integers(0, 255, (2000, 2000), dtype=np.uint8)
    return lambda: cv2.GaussianBlur(image, (31, 31), 3)


def onnxruntime():
    import numpy as np
    import onnxruntime as ort
    from onnx import TensorProto, helper
    size = 256
    matrix = np.random.default_rng(1).standard_normal((size, size)).astype(np.float32)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in "xy")
    weights = helper.make_tensor("w", TensorProto.FLOAT, [size, size], matrix.tobytes(), raw=True)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "product", [x], [y],
                              [weights])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 3
    session = ort.InferenceSession(model.SerializeToString(), options,
                                   providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": matrix})


def tensorflow():
    import tensorflow as tf
    tf.config.threading.set_intra_op_parallelism_threads(3)
    matrix = tf.random.normal((500, 500))
    return lambda: tf.matmul(matrix, matrix).numpy()


def jax():
    import jax.numpy as jnp
    matrix = jnp.ones((500, 500))
    return lambda: jnp.dot(matrix, matrix).block_until_ready()


def generator():
    """numpy.random's generator holds a lock of Python while it computes."""
    import numpy as np
    numbers = np.random.default_rng(1)
    return lambda: numbers.standard_normal(3_000_000)


def module():
    """A module whose import takes long. Python holds the module's import lock all that time."""
    sys.path.insert(0, os.environ["WILD_FOLDER"])
    with open(os.path.join(sys.path[0], "slow.py"), "w", encoding="ascii") as file:
        file.write("import time\ntime.sleep(1000)\n")
    return lambda: importlib.import_module("slow")


def libraries():
    return {f.__name__: f for f in (polars, opencv, onnxruntime, tensorflow, jax, generator,
                                    module)}


def serve(use, situation, answers, request):
    if situation == "pipe":
        os.write(answers, b".")
        os.read(request, 1)
    while True:
        use()
        os.write(answers, b".")
        if situation == "flight":
            os._exit(0)


def main():
    library, situation = sys.argv[1:]
    use = libraries()[library]()
    if situation in ("both", "pipe"):
        use()
    if situation == "flight":
        threading.Thread(target=lambda: [use() for _ in iter(int, 1)], daemon=True).start()
        time.sleep(0.5)
    answered, answers = os.pipe()
    request, _ = os.pipe()
    while True:
        child = os.fork()
        if child == 0:
            serve(use, situation, answers, request)
        os.read(answered, 1)  # forever, if the child is stuck
        if situation != "flight":
            break
        os.waitpid(child, 0)
    print("ready", flush=True)
    while os.read(answered, 65536):
        pass


main()
