// Counts of what PyTorch asks of the fake GPU: each event has a name, a number of occurrences and a number of bytes.
#pragma once
#include <cstddef>
#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

void count(const std::string& event, size_t bytes = 0);
