"""Verilog hierarchy from MyHDL, which by itself would flatten everything into one module.

A block whose function carries a `verilog_code` string converts to that text. So a block that only wraps another one
simulates like it, and converts to an instantiation of the module that the other one becomes.
"""


def instantiation(module: str, instance: str, inputs: dict, outputs: dict) -> str:
    """Return the text that instantiates `module`, and tell the converter how its signals are used.

    Parameters
    ----------
    module, instance : names in Verilog
    inputs, outputs : signals by port name; every signal must be an argument of the wrapping block, of that name
    """
    for signal in inputs.values():
        signal.read = True
    for signal in outputs.values():
        signal.driven = "wire"
    ports = ",\n".join(f"    .{port}(${port})" for port in (*inputs, *outputs))
    return f"{module} {instance} (\n{ports}\n);"
