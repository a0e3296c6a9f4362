/* gloo_calls.cc - see gloo_calls.h. Over TCP, the transport that Gloo has on one machine, with the
 * algorithms that it chooses by itself. */
#include "gloo_calls.h"

#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/math.h>
#include <gloo/reduce.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>

namespace
{

constexpr size_t kKeyBytes = 64, kValueBytes = 64 << 10;

/* One key and its value: written once, by whoever has claimed it. */
struct Entry {
    std::atomic<int> state; /* 0 free, 1 being written, 2 there: release, readers acquire */
    uint32_t length;
    char key[kKeyBytes], value[kValueBytes];
};

/* What the ranks tell each other to get connected, in memory that they share. */
class SharedStore : public gloo::rendezvous::Store
{
  public:
    SharedStore(void *memory, size_t entries)
        : entries_(static_cast<Entry *>(memory)), count_(entries)
    {
    }

    void set(const std::string &key, const std::vector<char> &data) override
    {
        if (key.size() >= kKeyBytes || data.size() > kValueBytes)
            throw std::length_error("no room in the store");
        for (size_t i = 0; i < count_; i++) {
            int free = 0;
            if (!entries_[i].state.compare_exchange_strong(free, 1))
                continue;
            std::strcpy(entries_[i].key, key.c_str());
            std::copy(data.begin(), data.end(), entries_[i].value);
            entries_[i].length = static_cast<uint32_t>(data.size());
            entries_[i].state.store(2, std::memory_order_release);
            return;
        }
        throw std::length_error("the store is full");
    }

    std::vector<char> get(const std::string &key) override
    {
        wait({key});
        const Entry *entry = find(key);
        return std::vector<char>(entry->value, entry->value + entry->length);
    }

    void wait(const std::vector<std::string> &keys) override
    {
        wait(keys, kDefaultTimeout);
    }

    void wait(const std::vector<std::string> &keys,
              const std::chrono::milliseconds &timeout) override
    {
        auto end = std::chrono::steady_clock::now() + timeout;
        for (const std::string &key : keys)
            while (find(key) == nullptr) {
                if (std::chrono::steady_clock::now() > end)
                    throw std::runtime_error("the other ranks did not come");
                usleep(1000);
            }
    }

  private:
    const Entry *find(const std::string &key) const
    {
        for (size_t i = 0; i < count_; i++)
            if (entries_[i].state.load(std::memory_order_acquire) == 2 && key == entries_[i].key)
                return &entries_[i];
        return nullptr;
    }

    Entry *entries_;
    size_t count_;
};

std::shared_ptr<gloo::rendezvous::Context> context;

size_t entries_of(int ranks)
{
    return static_cast<size_t>(ranks) * 2;
}

void add(void *to, const void *a, const void *b, size_t count)
{
    gloo::sum<float>(to, a, b, count);
}

template <typename Call> int guarded(Call call)
{
    try {
        call();
        return 0;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "bench_gloo: %s\n", error.what());
        return -1;
    }
}

} // namespace

size_t gloo_memory_bytes(int ranks)
{
    return entries_of(ranks) * sizeof(Entry);
}

int gloo_begin(void *memory, int rank, int ranks)
{
    return guarded([&] {
        SharedStore store(memory, entries_of(ranks));
        gloo::transport::tcp::attr where("127.0.0.1");
        auto device = gloo::transport::tcp::CreateDevice(where);
        context = std::make_shared<gloo::rendezvous::Context>(rank, ranks);
        context->connectFullMesh(store, device);
    });
}

void gloo_end(void)
{
    context.reset();
}

int gloo_barrier(void *, float *, float *, size_t)
{
    return guarded([] {
        gloo::BarrierOptions options(context);
        gloo::barrier(options);
    });
}

int gloo_allreduce(void *, float *send, float *recv, size_t count)
{
    return guarded([&] {
        gloo::AllreduceOptions options(context);
        if (send != nullptr)
            options.setInput(send, count);
        options.setOutput(recv, count);
        options.setReduceFunction(add);
        gloo::allreduce(options);
    });
}

int gloo_allreduce_in_place(void *, float *both, float *, size_t count)
{
    return gloo_allreduce(nullptr, nullptr, both, count);
}

int gloo_broadcast(void *, float *both, float *, size_t count)
{
    return guarded([&] {
        gloo::BroadcastOptions options(context);
        options.setOutput(both, count);
        options.setRoot(0);
        gloo::broadcast(options);
    });
}

int gloo_reduce(void *, float *send, float *recv, size_t count)
{
    return guarded([&] {
        gloo::ReduceOptions options(context);
        options.setInput(send, count);
        options.setOutput(recv, count);
        options.setRoot(0);
        options.setReduceFunction(add);
        gloo::reduce(options);
    });
}

int gloo_allgather(void *, float *send, float *recv, size_t count)
{
    return guarded([&] {
        gloo::AllgatherOptions options(context);
        options.setInput(send, count);
        options.setOutput(recv, count * static_cast<size_t>(context->size));
        gloo::allgather(options);
    });
}
