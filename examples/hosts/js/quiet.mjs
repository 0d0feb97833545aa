/** ONNX Runtime's published builds report to their maker unless this is set before they are loaded. */

process.env.ORT_DISABLE_TELEMETRY ??= "1";
