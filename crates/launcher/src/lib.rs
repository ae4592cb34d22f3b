//! What runs beside user code: resolves inputs, runs the command, publishes outputs
