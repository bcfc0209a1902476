/* SPDX-License-Identifier: MIT
 * Hands the tests written in C to googletest, which names, filters, runs and reports them. The tree's
 * only C++. Tests announce themselves before main (gw_test_add), when googletest may not exist yet,
 * so they are chained there and registered here. */
#include "tests/shim/gw_test.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <pthread.h>

namespace
{

gw_test_case *first;
gw_test_case **last = &first;

jmp_buf leave_target;
pthread_t test_thread;

class Test : public ::testing::Test
{
  public:
    Test(gw_test_fn *fn, const char *param) : fn_(fn), param_(param)
    {
    }

    void TestBody() override
    {
        test_thread = pthread_self();
        if (setjmp(leave_target) == 0)
            fn_(param_);
    }

  private:
    gw_test_fn *fn_;
    const char *param_;
};

void register_one(const gw_test_case *test, const std::string &name, const char *param)
{
    gw_test_fn *fn = test->fn;

    ::testing::RegisterTest(test->suite, name.c_str(), nullptr, nullptr, test->file, test->line,
                            [fn, param]() -> ::testing::Test * { return new Test(fn, param); });
}

/* A parameter becomes part of a test's name, which filters and shells must be able to spell. */
std::string name_with(const gw_test_case *test, const char *param)
{
    std::string tail(param);

    std::replace_if(
        tail.begin(), tail.end(), [](unsigned char c) { return !isalnum(c) && c != '_'; }, '_');
    return std::string(test->name) + "/" + tail;
}

void register_each(const gw_test_case *test)
{
    const char *const *list = test->list_fn ? test->list_fn() : test->list;

    for (; list && *list; list++)
        register_one(test, name_with(test, *list), *list);
}

std::string format(const char *fmt, va_list args)
{
    char text[4096];

    vsnprintf(text, sizeof(text), fmt, args);
    return text;
}

std::string decimal(__int128 value)
{
    if (value < 0)
        return std::to_string(static_cast<long long>(value));
    return std::to_string(static_cast<unsigned long long>(value));
}

/* Decimal, and hexadecimal too where that reads better than it. */
std::string number(__int128 value)
{
    char hex[32];

    if (value < 4096)
        return decimal(value);
    snprintf(hex, sizeof(hex), " (0x%llx)", static_cast<unsigned long long>(value));
    return decimal(value) + hex;
}

bool compare(const char *op, __int128 a, __int128 b)
{
    switch (op[0]) {
    case '=':
        return a == b;
    case '!':
        return a != b;
    case '<':
        return op[1] ? a <= b : a < b;
    default:
        return op[1] ? a >= b : a > b;
    }
}

std::string hex_row(const unsigned char *bytes, size_t count)
{
    std::string row;
    char cell[4];

    for (size_t i = 0; i < count; i++) {
        snprintf(cell, sizeof(cell), " %02x", bytes[i]);
        row += cell;
    }
    return row;
}

std::string quoted(const char *text)
{
    return text ? "\"" + std::string(text) + "\"" : "NULL";
}

} /* namespace */

void gw_test_add(gw_test_case *test)
{
    *last = test;
    last = &test->next;
}

bool gw_test_true(const char *file, int line, const char *text, bool holds)
{
    if (!holds)
        ADD_FAILURE_AT(file, line) << "expected: " << text;
    return holds;
}

bool gw_test_compare(const char *file, int line, const char *op, const char *a_text,
                     const char *b_text, __int128 a, __int128 b)
{
    bool holds = compare(op, a, b);

    if (!holds)
        ADD_FAILURE_AT(file, line) << "expected: " << a_text << " " << op << " " << b_text
                                   << "\n    left: " << number(a) << "\n   right: " << number(b);
    return holds;
}

bool gw_test_streq(const char *file, int line, const char *a_text, const char *b_text,
                   const char *a, const char *b)
{
    bool holds = a && b ? strcmp(a, b) == 0 : a == b;

    if (!holds)
        ADD_FAILURE_AT(file, line)
            << "expected: " << a_text << " and " << b_text
            << " are the same\n    left: " << quoted(a) << "\n   right: " << quoted(b);
    return holds;
}

bool gw_test_memeq(const char *file, int line, const char *a_text, const char *b_text,
                   const void *a, const void *b, size_t bytes)
{
    const unsigned char *left = static_cast<const unsigned char *>(a);
    const unsigned char *right = static_cast<const unsigned char *>(b);
    size_t at, row;

    if (bytes == 0 || memcmp(a, b, bytes) == 0)
        return true;
    for (at = 0; left[at] == right[at]; at++)
        ;
    row = std::min<size_t>(bytes - at, 16);
    ADD_FAILURE_AT(file, line) << "expected: " << a_text << " and " << b_text
                               << " hold the same bytes; they differ at " << at << " of " << bytes
                               << "\n    left:" << hex_row(left + at, row)
                               << "\n   right:" << hex_row(right + at, row);
    return false;
}

void gw_test_note(const char *file, int line, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    ADD_FAILURE_AT(file, line) << format(fmt, args);
    va_end(args);
}

void gw_test_leave(void)
{
    if (!pthread_equal(pthread_self(), test_thread)) {
        fputs("a test was left outside of its own thread\n", stderr);
        abort();
    }
    longjmp(leave_target, 1);
}

/* The result is made in a frame of its own, because longjmp runs no destructor. */
static void note_skip(const char *file, int line, const std::string &why)
{
    GTEST_MESSAGE_AT_(file, line, why.c_str(), ::testing::TestPartResult::kSkip);
}

void gw_test_skip(const char *file, int line, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    note_skip(file, line, format(fmt, args));
    va_end(args);
    gw_test_leave();
}

bool gw_test_has_failed(void)
{
    return ::testing::Test::HasFailure();
}

int main(int argc, char **argv)
{
    ::testing::InitGoogleTest(&argc, argv);
    for (const gw_test_case *test = first; test; test = test->next) {
        if (test->each)
            register_each(test);
        else
            register_one(test, test->name, nullptr);
    }
    return RUN_ALL_TESTS();
}
