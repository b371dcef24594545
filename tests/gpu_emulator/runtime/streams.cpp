// Streams, graphs and events. All work runs at once.
#include <chrono>

#include "runtime/runtime.h"

namespace emu {

struct Graph {
  std::vector<std::function<void()>> nodes;
};

namespace {

struct TimedEvent {
  std::chrono::steady_clock::time_point time;
};

}  // namespace

cudaError_t on_stream(cudaStream_t handle, std::function<void()> work) {
  Runtime& r = runtime();
  auto* stream = reinterpret_cast<Stream*>(handle);
  const bool legacy = handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread;
  if (!legacy && !r.streams.count(stream)) return result(cudaErrorInvalidResourceHandle);
  if (!legacy && stream->capturing) {
    stream->graph->nodes.push_back(std::move(work));
    return cudaSuccess;
  }
  if (legacy && r.captures > 0 && handle != cudaStreamPerThread) return result(cudaErrorStreamCaptureImplicit);
  work();
  return cudaSuccess;
}

}  // namespace emu

using namespace emu;

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  auto* s = new Stream;
  runtime().streams.insert(s);
  *stream = reinterpret_cast<cudaStream_t>(s);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, 0); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  auto* s = reinterpret_cast<Stream*>(stream);
  if (!runtime().streams.erase(s)) return result(cudaErrorInvalidResourceHandle);
  delete s;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return runtime().captures ? result(cudaErrorStreamCaptureUnsupported) : synchronise();
}
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  auto* s = reinterpret_cast<Stream*>(stream);
  *status = runtime().streams.count(s) && s->capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  auto* s = reinterpret_cast<Stream*>(stream);
  if (!runtime().streams.count(s) || s->capturing) return result(cudaErrorInvalidValue);
  s->capturing = true;
  s->graph = new Graph;
  ++runtime().captures;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  auto* s = reinterpret_cast<Stream*>(stream);
  if (!runtime().streams.count(s) || !s->capturing) return result(cudaErrorInvalidValue);
  s->capturing = false;
  --runtime().captures;
  *graph = reinterpret_cast<cudaGraph_t>(s->graph);
  s->graph = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
  for (const auto& node : reinterpret_cast<Graph*>(executable)->nodes) node();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete reinterpret_cast<Graph*>(executable);
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new emu::TimedEvent{});
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  reinterpret_cast<emu::TimedEvent*>(event)->time = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return synchronise(); }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
  *ms = std::chrono::duration<float, std::milli>(reinterpret_cast<emu::TimedEvent*>(b)->time -
                                                 reinterpret_cast<emu::TimedEvent*>(a)->time)
            .count();
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<emu::TimedEvent*>(event);
  return cudaSuccess;
}

}  // extern "C"
#pragma GCC visibility pop
