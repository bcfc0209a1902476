/* SPDX-License-Identifier: MIT
 * tests/shim/gw_test.h - what a test in C sees of googletest.
 *
 *     GW_TEST(scan, run_stops_at_chunk_boundary)
 *     {
 *         GW_EXPECT_EQ(run.page_count, 512);
 *     }
 *
 *     GW_TEST_EACH(wire, message_arrives_after_the_puts_before_it, gw_test_wires)
 *     {
 *         open_pair(param);              // const char *param: "tcp4", "unix", ...
 *     }
 *
 * A test's name is a fact. EXPECT notes a failure and goes on, ASSERT leaves the test, from whatever
 * depth of calls, by longjmp: what the test had open stays open, which is why a test that must clean
 * up after itself uses EXPECT. Any thread may EXPECT; an ASSERT, FAIL or SKIP outside of the test's
 * own thread aborts the program (ctest runs each test in one of its own). */
#ifndef GW_TEST_H
#define GW_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void gw_test_fn(const char *param);
/* A list: a NULL-terminated array, or a function that returns one (static; asked once, in main). */
typedef const char *const *gw_test_list_fn(void);

struct gw_test_case {
    const char *suite;
    const char *name;
    const char *file;
    int line;
    gw_test_fn *fn;
    gw_test_list_fn *list_fn; /* either, or neither: a test without a parameter */
    const char *const *list;
    bool each;
    struct gw_test_case *next; /* the shim's */
};

/* Hands over one test; @test is static. Called before main. */
void gw_test_add(struct gw_test_case *test);

/* Each notes a failure unless the claim holds, and returns whether it did. */
bool gw_test_true(const char *file, int line, const char *text, bool holds);
bool gw_test_compare(const char *file, int line, const char *op, const char *a_text,
                     const char *b_text, __int128 a, __int128 b);
bool gw_test_streq(const char *file, int line, const char *a_text, const char *b_text,
                   const char *a, const char *b);
bool gw_test_memeq(const char *file, int line, const char *a_text, const char *b_text,
                   const void *a, const void *b, size_t bytes);
void gw_test_note(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Leave the test. */
__attribute__((noreturn)) void gw_test_leave(void);
__attribute__((noreturn, format(printf, 3, 4))) void gw_test_skip(const char *file, int line,
                                                                  const char *fmt, ...);

/* True if the running test has noted a failure. */
bool gw_test_has_failed(void);

#ifdef __cplusplus
}
#else

static inline void gw_test_set_list_fn(struct gw_test_case *test, gw_test_list_fn *list)
{
    test->list_fn = list;
}

static inline void gw_test_set_list(struct gw_test_case *test, const char *const *list)
{
    test->list = list;
}

static inline void gw_test_set_list_mutable(struct gw_test_case *test, const char **list)
{
    test->list = (const char *const *)list;
}

#define GW_TEST_DEFINE_(suite_, name_, each_, set_list_)                                           \
    static void suite_##_##name_##_test(const char *param);                                        \
    __attribute__((constructor)) static void suite_##_##name_##_add(void)                          \
    {                                                                                              \
        static struct gw_test_case test = {.suite = #suite_,                                       \
                                           .name = #name_,                                         \
                                           .file = __FILE__,                                       \
                                           .line = __LINE__,                                       \
                                           .fn = suite_##_##name_##_test,                          \
                                           .each = each_};                                         \
        set_list_;                                                                                 \
        gw_test_add(&test);                                                                        \
    }                                                                                              \
    static void suite_##_##name_##_test(__attribute__((unused)) const char *param)

#define GW_TEST(suite, name) GW_TEST_DEFINE_(suite, name, false, (void)0)

/* One test for each string of the list, which is that string as `param`. */
#define GW_TEST_EACH(suite, name, strings)                                                         \
    GW_TEST_DEFINE_(suite, name, true, GW_TEST_SET_LIST_(strings))

/* clang-format off: it knows no _Generic */
#define GW_TEST_SET_LIST_(strings)                                                                 \
    _Generic((strings),                                 \
        gw_test_list_fn *: gw_test_set_list_fn,         \
        const char *const *: gw_test_set_list,          \
        const char **: gw_test_set_list_mutable)(&test, (strings))
/* clang-format on */

#define GW_EXPECT(cond) gw_test_true(__FILE__, __LINE__, #cond, (cond))
/* Integers of any type and sign, compared by value. */
#define GW_EXPECT_EQ(a, b) GW_TEST_COMPARE_("==", a, b)
#define GW_EXPECT_NE(a, b) GW_TEST_COMPARE_("!=", a, b)
#define GW_EXPECT_LT(a, b) GW_TEST_COMPARE_("<", a, b)
#define GW_EXPECT_LE(a, b) GW_TEST_COMPARE_("<=", a, b)
#define GW_EXPECT_GT(a, b) GW_TEST_COMPARE_(">", a, b)
#define GW_EXPECT_GE(a, b) GW_TEST_COMPARE_(">=", a, b)
#define GW_EXPECT_STREQ(a, b) gw_test_streq(__FILE__, __LINE__, #a, #b, (a), (b))
#define GW_EXPECT_MEMEQ(a, b, bytes) gw_test_memeq(__FILE__, __LINE__, #a, #b, (a), (b), (bytes))

#define GW_TEST_COMPARE_(op, a, b)                                                                 \
    gw_test_compare(__FILE__, __LINE__, op, #a, #b, (__int128)(a), (__int128)(b))
#define GW_TEST_OR_LEAVE_(claim)                                                                   \
    do {                                                                                           \
        if (!(claim))                                                                              \
            gw_test_leave();                                                                       \
    } while (0)

/* Spelt out for a condition, so that a compiler and an analyser learn from it what holds after. */
#define GW_ASSERT(cond)                                                                            \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            gw_test_true(__FILE__, __LINE__, #cond, false);                                        \
            gw_test_leave();                                                                       \
        }                                                                                          \
    } while (0)
#define GW_ASSERT_EQ(a, b) GW_TEST_OR_LEAVE_(GW_EXPECT_EQ(a, b))
#define GW_ASSERT_NE(a, b) GW_TEST_OR_LEAVE_(GW_EXPECT_NE(a, b))
#define GW_ASSERT_LT(a, b) GW_TEST_OR_LEAVE_(GW_EXPECT_LT(a, b))
#define GW_ASSERT_LE(a, b) GW_TEST_OR_LEAVE_(GW_EXPECT_LE(a, b))
#define GW_ASSERT_GT(a, b) GW_TEST_OR_LEAVE_(GW_EXPECT_GT(a, b))
#define GW_ASSERT_GE(a, b) GW_TEST_OR_LEAVE_(GW_EXPECT_GE(a, b))
#define GW_ASSERT_STREQ(a, b) GW_TEST_OR_LEAVE_(GW_EXPECT_STREQ(a, b))
#define GW_ASSERT_MEMEQ(a, b, bytes) GW_TEST_OR_LEAVE_(GW_EXPECT_MEMEQ(a, b, bytes))

/* printf-like. FAIL and SKIP leave the test; a skip says what the machine lacks. */
#define GW_NOTE_FAILURE(...) gw_test_note(__FILE__, __LINE__, __VA_ARGS__)
#define GW_FAIL(...)                                                                               \
    do {                                                                                           \
        gw_test_note(__FILE__, __LINE__, __VA_ARGS__);                                             \
        gw_test_leave();                                                                           \
    } while (0)
#define GW_SKIP(...) gw_test_skip(__FILE__, __LINE__, __VA_ARGS__)

#endif
#endif
