// Streams, events and graphs, and the orders in which a device may do what it was given.
//
// Work waits in its stream until somebody waits for it, or until some time before, by FAKECUDA_ORDER: left out, all work is
// done at once; 0, as late as may be; any other number is the seed of a random order. What comes before what is as CUDA
// has it: work of one stream in turn, events, and the default stream, which blocking streams wait for as it does for them.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <random>

#include "cuda.h"

namespace {

// A place in the work of a stream.
struct Place {
    Stream* stream;
    bool is_reached = false;
    double time = 0;
};
typedef std::shared_ptr<Place> PlacePtr;

struct Entry {
    Work work;
    std::vector<PlacePtr> after;
    PlacePtr place;
};

struct Graph {
    std::vector<Work> nodes;
};

}  // namespace

struct Stream {
    int device;
    bool is_blocking, is_default;
    double weight = 1;  // how often a random order takes its work
    std::deque<Entry> queue;
    PlacePtr last;
    Graph* capture = nullptr;
    bool is_spoiled = false;
    cudaStreamCaptureMode mode;
};

namespace {

struct Event {
    bool has_time;
    PlacePtr place;
    Graph* capture = nullptr;  // that it was recorded in
    int asked = 0;             // how often somebody has asked for it
};

std::set<Stream*> streams;
const int AT_ONCE = -1, LATE = 0, PATIENCE = 100;
int order = number_from_environment("FAKECUDA_ORDER", AT_ONCE);
std::mt19937 chance(order);

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

Stream* make_stream(bool is_blocking, bool is_default = false) {
    auto* stream = new Stream{current_device, is_blocking, is_default};
    const double weights[] = {0.02, 1, 50};
    stream->weight = weights[chance() % 3];
    streams.insert(stream);
    return stream;
}

// The stream of a handle: 0 and 1 are the default stream of the device, 2 is that of the thread; null if there is none.
Stream* stream_of(const void* handle) {
    static std::map<int, Stream*> defaults;
    static thread_local std::map<int, Stream*> of_thread;
    if (is_legacy(handle)) {
        Stream*& found = defaults[current_device];
        return found ? found : found = make_stream(false, true);
    }
    if (handle == reinterpret_cast<void*>(2)) {
        Stream*& found = of_thread[current_device];
        return found ? found : found = make_stream(true);
    }
    auto* stream = static_cast<Stream*>(const_cast<void*>(handle));
    return streams.count(stream) ? stream : nullptr;
}

bool is_ready(const Entry& entry) {
    return std::all_of(entry.after.begin(), entry.after.end(), [](const PlacePtr& place) { return place->is_reached; });
}

void do_first(Stream* stream) {
    Entry entry = stream->queue.front();
    stream->queue.pop_front();
    if (entry.work && !is_broken())
        if (cudaError_t error = entry.work()) fprintf(stderr, "simulated CUDA: error %d in work of a stream\n", error);
    entry.place->is_reached = true;
    entry.place->time = now();
}

// Do what a stream was given, and what that waits for; up to a place of it, or all.
void finish(Stream* stream, const Place* until = nullptr) {
    while (!stream->queue.empty() && !(until && until->is_reached)) {
        std::vector<PlacePtr> after = stream->queue.front().after;
        for (const PlacePtr& place : after)
            if (!place->is_reached) finish(place->stream, place.get());
        do_first(stream);
    }
}

// In a random order: do some of what could be done now.
void wander() {
    if (order == AT_ONCE || order == LATE) return;
    while (std::uniform_real_distribution<double>()(chance) < 0.6) {
        std::vector<Stream*> ready;
        std::vector<double> weights;
        for (Stream* stream : streams)
            if (!stream->queue.empty() && is_ready(stream->queue.front())) {
                ready.push_back(stream);
                weights.push_back(stream->weight);
            }
        if (ready.empty()) return;
        do_first(ready[std::discrete_distribution<int>(weights.begin(), weights.end())(chance)]);
    }
}

PlacePtr give(Stream* stream, Work work, std::vector<PlacePtr> after = {}) {
    for (Stream* other : streams) {
        bool in_turn = (stream->is_default && other->is_blocking) || (stream->is_blocking && other->is_default);
        if (in_turn && other->device == stream->device && other->last && !other->last->is_reached)
            after.push_back(other->last);
    }
    auto place = std::make_shared<Place>(Place{stream});
    stream->queue.push_back({std::move(work), std::move(after), place});
    stream->last = place;
    if (order == AT_ONCE) finish(stream);
    wander();
    return place;
}

// The default stream waits for every blocking stream: it must not be used while one of them is captured.
cudaError_t spoil_for_default(const Stream* stream) {
    for (Stream* other : streams)
        if (stream->is_default && other->capture && other->is_blocking && other->device == stream->device) {
            other->is_spoiled = true;
            return cudaErrorStreamCaptureImplicit;
        }
    return cudaSuccess;
}

cudaError_t wait_for(const void* handle) {
    Stream* stream = stream_of(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (cudaError_t error = spoil_for_default(stream)) return error;
    if (stream->capture) {
        stream->is_spoiled = true;
        return cudaErrorStreamCaptureUnsupported;
    }
    if (stream->is_default) give(stream, nullptr);  // after all that blocking streams were given
    finish(stream);
    wander();
    return cudaSuccess;
}

}  // namespace

bool is_legacy(const void* handle) { return handle == nullptr || handle == reinterpret_cast<void*>(1); }
int device_of_stream(const void* handle) {
    Stream* stream = stream_of(handle);
    return stream ? stream->device : -1;
}
bool is_capturing(const void* handle) {
    Stream* stream = stream_of(handle);
    return stream && stream->capture;
}
void finish_everything() {
    for (Stream* stream : streams) finish(stream);
}
bool do_something() {
    for (Stream* stream : streams)
        if (!stream->queue.empty() && is_ready(stream->queue.front())) return do_first(stream), true;
    return false;
}
cudaError_t spoil_captures(bool even_relaxed) {
    for (Stream* stream : streams)
        if (stream->capture && (even_relaxed || stream->mode != cudaStreamCaptureModeRelaxed)) {
            stream->is_spoiled = true;
            return cudaErrorStreamCaptureUnsupported;
        }
    return cudaSuccess;
}
cudaError_t submit(void* handle, Work work) {
    Stream* stream = stream_of(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (cudaError_t error = spoil_for_default(stream)) return error;
    if (stream->capture) {
        if (stream->is_spoiled) return cudaErrorStreamCaptureInvalidated;
        stream->capture->nodes.push_back(std::move(work));
    } else {
        give(stream, std::move(work));
    }
    return cudaSuccess;
}
// From now on work is done in this order; see above.
EXPORT void simulated_order(int wanted) {
    std::lock_guard<std::recursive_mutex> alone(everything);
    finish_everything();
    order = wanted;
    chance.seed(wanted);
    const double weights[] = {0.02, 1, 50};
    for (Stream* stream : streams) stream->weight = weights[chance() % 3];
}

// ---- streams

RUNTIME cudaStreamCreateWithPriority(cudaStream_t* made, unsigned flags, int) {
    ENTER;
    *made = reinterpret_cast<cudaStream_t>(make_stream(!(flags & cudaStreamNonBlocking)));
    return cudaSuccess;
}
RUNTIME cudaStreamCreateWithFlags(cudaStream_t* made, unsigned flags) { return cudaStreamCreateWithPriority(made, flags, 0); }
RUNTIME cudaStreamCreate(cudaStream_t* made) { return cudaStreamCreateWithPriority(made, 0, 0); }
RUNTIME cudaStreamDestroy(cudaStream_t handle) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return failed(cudaErrorInvalidResourceHandle);
    // What it was given is done all the same. Its address is never another's: places in it are remembered by it.
    if (stream->queue.empty()) streams.erase(stream);
    return cudaSuccess;
}
RUNTIME cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
    ENTER;
    Stream* stream = stream_of(handle);
    *flags = stream && !stream->is_blocking && !stream->is_default ? cudaStreamNonBlocking : cudaStreamDefault;
    return cudaSuccess;
}
RUNTIME cudaStreamSynchronize(cudaStream_t handle) {
    while (is_hanging()) sleep(1000);
    ENTER;
    return failed(wait_for(handle));
}
RUNTIME cudaStreamQuery(cudaStream_t handle) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return failed(cudaErrorInvalidResourceHandle);
    if (stream->capture) {
        stream->is_spoiled = true;
        return failed(cudaErrorStreamCaptureUnsupported);
    }
    // Whoever asks again and again finds it done one day.
    order == LATE ? void(do_something()) : wander();
    return stream->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}
RUNTIME cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t waited_for, unsigned) {
    ENTER;
    auto* event = reinterpret_cast<Event*>(waited_for);
    Stream* stream = stream_of(handle);
    if (!stream) return failed(cudaErrorInvalidResourceHandle);
    if (event->capture) return stream->capture == event->capture ? cudaSuccess : failed(cudaErrorNotSupported);
    if (stream->capture && event->place) {  // what was not captured must not be waited for in a capture
        stream->is_spoiled = true;
        return failed(cudaErrorStreamCaptureIsolation);
    }
    if (event->place && !event->place->is_reached) give(stream, nullptr, {event->place});
    return cudaSuccess;
}

// ---- events

RUNTIME cudaEventCreateWithFlags(cudaEvent_t* made, unsigned flags) {
    ENTER;
    *made = reinterpret_cast<cudaEvent_t>(new Event{!(flags & cudaEventDisableTiming)});
    return cudaSuccess;
}
RUNTIME cudaEventCreate(cudaEvent_t* made) { return cudaEventCreateWithFlags(made, 0); }
RUNTIME cudaEventDestroy(cudaEvent_t event) {
    ENTER;
    delete reinterpret_cast<Event*>(event);
    return cudaSuccess;
}
RUNTIME cudaEventRecord(cudaEvent_t recorded, cudaStream_t handle) {
    ENTER;
    auto* event = reinterpret_cast<Event*>(recorded);
    Stream* stream = stream_of(handle);
    if (!stream) return failed(cudaErrorInvalidResourceHandle);
    if (cudaError_t error = spoil_for_default(stream)) return failed(error);
    event->capture = stream->capture;
    event->asked = 0;
    if (!stream->capture) event->place = give(stream, nullptr);
    return cudaSuccess;
}
RUNTIME cudaEventSynchronize(cudaEvent_t waited_for) {
    ENTER;
    auto* event = reinterpret_cast<Event*>(waited_for);
    if (event->capture) return failed(cudaErrorCapturedEvent);
    if (event->place && !event->place->is_reached) finish(event->place->stream, event->place.get());
    wander();
    return cudaSuccess;
}
RUNTIME cudaEventQuery(cudaEvent_t asked) {
    ENTER;
    auto* event = reinterpret_cast<Event*>(asked);
    if (event->capture) return failed(cudaErrorCapturedEvent);
    // As for a stream; but CuPy asks now and then, which changes nothing.
    order == LATE ? void(++event->asked > PATIENCE && do_something()) : wander();
    return event->place && !event->place->is_reached ? cudaErrorNotReady : cudaSuccess;
}
RUNTIME cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    ENTER;
    const auto *first = reinterpret_cast<Event*>(begin), *last = reinterpret_cast<Event*>(end);
    for (const Event* event : {first, last})
        if (!event->place || !event->has_time) return failed(cudaErrorInvalidResourceHandle);
    if (!first->place->is_reached || !last->place->is_reached) return cudaErrorNotReady;
    *milliseconds = 1000 * (last->place->time - first->place->time);
    return cudaSuccess;
}

// ---- captures and graphs

RUNTIME cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream || stream->is_default) return failed(cudaErrorStreamCaptureUnsupported);
    if (stream->capture) return failed(cudaErrorIllegalState);
    stream->capture = new Graph;
    stream->is_spoiled = false;
    stream->mode = mode;
    return cudaSuccess;
}
RUNTIME cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
    ENTER;
    Stream* stream = stream_of(handle);
    *graph = nullptr;
    if (!stream || !stream->capture) return failed(cudaErrorIllegalState);
    Graph* captured = stream->capture;
    stream->capture = nullptr;
    if (stream->is_spoiled) {
        delete captured;
        return failed(cudaErrorStreamCaptureInvalidated);
    }
    *graph = reinterpret_cast<cudaGraph_t>(captured);
    return cudaSuccess;
}
RUNTIME cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return failed(cudaErrorInvalidResourceHandle);
    if (cudaError_t error = spoil_for_default(stream)) return failed(error);
    *status = !stream->capture     ? cudaStreamCaptureStatusNone
              : stream->is_spoiled ? cudaStreamCaptureStatusInvalidated
                                   : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}
RUNTIME cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
    ENTER;
    *made = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
    return cudaSuccess;
}
RUNTIME cudaGraphDestroy(cudaGraph_t graph) {
    ENTER;
    delete reinterpret_cast<Graph*>(graph);
    return cudaSuccess;
}
RUNTIME cudaGraphExecDestroy(cudaGraphExec_t graph) {
    ENTER;
    delete reinterpret_cast<Graph*>(graph);
    return cudaSuccess;
}
RUNTIME cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
    ENTER;
    return cudaSuccess;
}
RUNTIME cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t handle) {
    ENTER;
    if (device_of_stream(handle) != current_device) return failed(cudaErrorInvalidResourceHandle);
    // Its nodes one by one: the host goes on meanwhile.
    for (const Work& node : reinterpret_cast<Graph*>(graph)->nodes)
        if (cudaError_t error = submit(handle, node)) return failed(error);
    return cudaSuccess;
}
