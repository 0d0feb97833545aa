// One ONNX file, run by ONNX Runtime's C interface.
#pragma once

#if __has_include(<onnxruntime_c_api.h>)
#include <onnxruntime_c_api.h>
#else
#include "onnxruntime_abridged.h"
#endif

#include <array>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

// The functions; version 1 of the table has all that is called here, and every library has it.
inline const OrtApi& ort() {
  static const OrtApi* api = OrtGetApiBase()->GetApi(1);
  return *api;
}

inline void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = ort().GetErrorMessage(status);
  ort().ReleaseStatus(status);
  throw std::runtime_error(message);
}

// What `make` gives, released by `Release` when it goes.
template <typename T, void (*OrtApi::*Release)(T*)>
struct Releaser {
  void operator()(T* held) const { (ort().*Release)(held); }
};
using Env = std::unique_ptr<OrtEnv, Releaser<OrtEnv, &OrtApi::ReleaseEnv>>;
using MemoryInfo = std::unique_ptr<OrtMemoryInfo, Releaser<OrtMemoryInfo, &OrtApi::ReleaseMemoryInfo>>;
using Options = std::unique_ptr<OrtSessionOptions, Releaser<OrtSessionOptions, &OrtApi::ReleaseSessionOptions>>;
using Session = std::unique_ptr<OrtSession, Releaser<OrtSession, &OrtApi::ReleaseSession>>;
using Shape = std::unique_ptr<OrtTensorTypeAndShapeInfo,
                              Releaser<OrtTensorTypeAndShapeInfo, &OrtApi::ReleaseTensorTypeAndShapeInfo>>;
using Value = std::unique_ptr<OrtValue, Releaser<OrtValue, &OrtApi::ReleaseValue>>;

template <typename Owner, typename... Arguments, typename... Given>
Owner make(OrtStatus* (*function)(Arguments...), Given... given) {
  typename Owner::pointer made = nullptr;
  check(function(given..., &made));
  return Owner(made);
}

class Graph {
 public:
  Graph(const OrtEnv* env, const std::filesystem::path& path) {
    const Options options = make<Options>(ort().CreateSessionOptions);
    session_ = make<Session>(ort().CreateSession, env, path.c_str(), options.get());
  }

  // One input, one output, which is float32.
  template <typename T>
  std::vector<float> run(const char* input, std::vector<T>& data, const std::vector<int64_t>& shape,
                         const char* output) const {
    constexpr auto type = sizeof(T) == 1 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    const MemoryInfo memory = make<MemoryInfo>(ort().CreateCpuMemoryInfo, OrtDeviceAllocator, OrtMemTypeDefault);
    const Value given = make<Value>(ort().CreateTensorWithDataAsOrtValue, memory.get(), data.data(),
                                    data.size() * sizeof(T), shape.data(), shape.size(), type);
    const OrtValue* inputs[] = {given.get()};
    OrtValue* made = nullptr;
    check(ort().Run(session_.get(), nullptr, &input, inputs, 1, &output, 1, &made));
    const Value result(made);
    const Shape found = make<Shape>(ort().GetTensorTypeAndShape, result.get());
    size_t count = 0;
    check(ort().GetTensorShapeElementCount(found.get(), &count));
    void* values = nullptr;
    check(ort().GetTensorMutableData(result.get(), &values));
    const float* first = static_cast<const float*>(values);
    return {first, first + count};
  }

 private:
  Session session_;
};
