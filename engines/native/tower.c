/* A vision tower for a few dirty tokens: what `select_inplace` of engines.export.vision computes, in one call.
 *
 * A runtime of general use spends as long on a handful of rows on its hundred small operators as on their arithmetic.
 * Here the weights lie as the inner loop reads them (panels of PANEL outputs, all inputs of a panel in a row), a token's
 * rows stay in registers while a panel passes, and threads share the panels of each step.
 *
 * Floats throughout. Sums are not in the order of another runtime: results agree to rounding.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* W: floats of a vector register. ROWS × 2 accumulators, two weights and a value fit into the registers. */
#if defined(__AVX512F__)
enum { W = 16, ROWS = 12 };
#elif defined(__AVX__)
enum { W = 8, ROWS = 6 };
#else
enum { W = 4, ROWS = 8 };
#endif
enum { PANEL = 2 * W, MOST_THREADS = 8, LONGEST_SPIN = 4000 };

typedef float vec __attribute__((vector_size(4 * W)));
typedef int32_t ivec __attribute__((vector_size(4 * W)));
typedef float loose __attribute__((vector_size(4 * W), aligned(4))); /* at any address */

static inline vec at(const float *p) { return *(const loose *)p; }
static inline void put(float *p, vec v) { *(loose *)p = v; }
static inline vec all(float x) { return x - (vec){0}; }

/* ---- Arithmetic ---- */

/* e^x within 2 units in the last place, for x in [-87, 88]; less gives almost nothing, more almost infinity. */
static inline vec expv(vec x)
{
    vec low = all(-87.0f), high = all(88.0f);
    ivec below = x < low, above = x > high;
    x = (vec)(((ivec)x & ~below) | ((ivec)low & below));
    x = (vec)(((ivec)x & ~above) | ((ivec)high & above));
    vec shift = all(12582912.0f); /* 1.5 · 2^23: adding it rounds to a whole number */
    vec n = (x * 1.44269504088896341f + shift) - shift;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
    return p * (vec)power;
}

/* x · Φ(x) by tanh, as `gelu_pytorch_tanh`: half of 1 + tanh u is 1 / (1 + e^-2u). */
static inline vec gelu(vec x)
{
    vec u = x * (1.0f + 0.044715f * x * x) * -1.5957691216057308f;
    return x / (1.0f + expv(u));
}

static inline float sum(vec v)
{
    float total = 0;
    for (int i = 0; i < W; i++)
        total += v[i];
    return total;
}

/* out (rows, PANEL) = a (rows, k; stride lda) · b (k, PANEL; stride ldb). */
#define BLOCK(N)                                                                                                       \
    static void block_##N(const float *a, size_t lda, const float *b, size_t ldb, int k, vec out[][2])                 \
    {                                                                                                                  \
        vec s[N][2];                                                                                                   \
        _Pragma("GCC unroll 12") for (int r = 0; r < N; r++) s[r][0] = s[r][1] = (vec){0};                             \
        for (int i = 0; i < k; i++) {                                                                                  \
            vec left = at(b + i * ldb), right = at(b + i * ldb + W);                                                   \
            _Pragma("GCC unroll 12") for (int r = 0; r < N; r++)                                                       \
            {                                                                                                          \
                vec x = all(a[r * lda + i]);                                                                           \
                s[r][0] += x * left;                                                                                   \
                s[r][1] += x * right;                                                                                  \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 12") for (int r = 0; r < N; r++) out[r][0] = s[r][0], out[r][1] = s[r][1];                 \
    }
BLOCK(1) BLOCK(2) BLOCK(3) BLOCK(4) BLOCK(5) BLOCK(6) BLOCK(7) BLOCK(8)
#if defined(__AVX512F__)
BLOCK(9) BLOCK(10) BLOCK(11) BLOCK(12)
#endif

typedef void Block(const float *, size_t, const float *, size_t, int, vec[][2]);
static Block *const BLOCKS[] = {
    NULL,    block_1, block_2, block_3, block_4, block_5, block_6, block_7, block_8,
#if defined(__AVX512F__)
    block_9, block_10, block_11, block_12,
#endif
};

/* How many of the `left` rows go next, so that blocks are about equally high. */
static int height(int left)
{
    int blocks = (left + ROWS - 1) / ROWS;
    return (left + blocks - 1) / blocks;
}

/* to (W, W; stride ldt) = from (W, W; stride ldf) turned over. */
static void turn(const float *from, size_t ldf, float *to, size_t ldt)
{
#if defined(__clang__)
    for (int c = 0; c < W; c++)
        for (int r = 0; r < W; r++)
            to[c * ldt + r] = from[r * ldf + c];
#else
    vec m[W];
    for (int r = 0; r < W; r++)
        m[r] = at(from + r * ldf);
#pragma GCC unroll 4
    for (int s = 1; s < W; s *= 2) { /* bit s of row and lane change places */
        ivec one, two;
        for (int i = 0; i < W; i++)
            one[i] = i & s ? W + i - s : i, two[i] = i & s ? W + i : i + s;
#pragma GCC unroll 16
        for (int r = 0; r < W; r++)
            if (!(r & s)) {
                vec a = m[r], b = m[r | s];
                m[r] = __builtin_shuffle(a, b, one), m[r | s] = __builtin_shuffle(a, b, two);
            }
    }
    for (int r = 0; r < W; r++)
        put(to + r * ldt, m[r]);
#endif
}

static void layer_norm(const float *x, const float *weight, const float *bias, float epsilon, int dim, float *out)
{
    vec total = {0}, squares = {0};
    for (int i = 0; i < dim; i += W)
        total += at(x + i);
    float mean = sum(total) / (float)dim;
    for (int i = 0; i < dim; i += W) {
        vec d = at(x + i) - mean;
        squares += d * d;
    }
    float scale = 1.0f / sqrtf(sum(squares) / (float)dim + epsilon);
    for (int i = 0; i < dim; i += W)
        put(out + i, (at(x + i) - mean) * scale * at(weight + i) + at(bias + i));
}

/* ---- A tower, its helpers, one call ---- */

typedef struct {
    int32_t layers, heads, dim, inner, tokens, pixels; /* dim / heads and inner are multiples of PANEL */
    float epsilon;
} Shape;

typedef struct { /* one linear layer: panels, then the bias */
    const float *panels, *bias;
} Linear;

typedef struct {
    const float *norm1, *norm2; /* weight, then bias */
    Linear qkv, out, fc1, fc2;
} Layer;

typedef struct {
    const float *patches;
    const int64_t *position, *index, *source;
    float *cache, *features;
    int32_t n, rows;
} Call;

typedef struct Tower Tower;

typedef struct { /* of one thread: what it holds of the step at hand */
    Tower *tower;
    float *normed, *keys, *scores;
    uint32_t normed_in;
    int keys_of;
    uint64_t serial; /* the call that normed_in and keys_of are of */
    size_t room;
    pthread_t thread;
} Worker;

struct Tower {
    Shape shape;
    int threads, started, stop;
    Linear embed;
    const float *table, *last; /* positions (tokens, dim); the norm after all layers */
    Layer *layers;
    Call call;
    float *scratch; /* see rows_of */
    size_t scratch_room;
    _Atomic uint64_t next; /* the next ticket */
    _Atomic uint32_t done; /* parts of the step that are finished */
    uint64_t serial; /* of the call */
    pthread_mutex_t lock, busy;
    pthread_cond_t wake;
    Worker workers[MOST_THREADS];
};

enum { QKV, ATTEND, OUT, FC1, FC2, STEPS }; /* of a layer; step 0 of a call embeds, the last one norms */
enum { BY_ROWS = 8, HIGHEST = 24 };

static int up(int n, int to) { return (n + to - 1) / to; }

static int blocks_of(int n) { return n == 1 ? 1 : up(n, HIGHEST) < 2 ? 2 : up(n, HIGHEST); }

/* How many parts a step has. */
static int parts(const Tower *t, uint32_t step)
{
    const Shape *s = &t->shape;
    if (step == 0)
        return s->dim / PANEL;
    if (step == (uint32_t)(s->layers * STEPS + 1))
        return up(t->call.n, BY_ROWS);
    switch ((step - 1) % STEPS) {
    case QKV: return 3 * s->dim / PANEL;
    case ATTEND: return s->heads * blocks_of(t->call.n);
    case FC1: return s->inner / PANEL;
    default: return s->dim / PANEL;
    }
}

typedef struct { /* where rows lie in the scratch: (n, dim), (n, 3 dim), (n, dim), (n, inner) */
    float *x, *qkv, *found, *hidden;
} Rows;

static Rows rows_of(const Tower *t)
{
    size_t n = (size_t)t->call.n, dim = (size_t)t->shape.dim;
    Rows r = {.x = t->scratch};
    r.qkv = r.x + n * dim;
    r.found = r.qkv + n * 3 * dim;
    r.hidden = r.found + n * dim;
    return r;
}

/* One panel of a linear layer, for all rows: out[r, first …] = a[r] · panel + bias, then `then`. */
enum Then { KEEP, ADD, GELU };
static void panel(const float *a, int k, const Linear *linear, int number, float *out, int width, int n, enum Then then)
{
    const float *b = linear->panels + (size_t)number * (size_t)k * PANEL;
    int first = number * PANEL;
    vec left = at(linear->bias + first), right = at(linear->bias + first + W), s[ROWS][2];
    for (int row = 0; row < n;) {
        int high = height(n - row);
        BLOCKS[high](a + (size_t)row * (size_t)k, (size_t)k, b, PANEL, k, s);
        for (int r = 0; r < high; r++) {
            float *to = out + (size_t)(row + r) * (size_t)width + first;
            vec one = s[r][0] + left, two = s[r][1] + right;
            if (then == GELU)
                one = gelu(one), two = gelu(two);
            if (then == ADD)
                one += at(to), two += at(to + W);
            put(to, one), put(to + W, two);
        }
        row += high;
    }
}

/* Normed rows, made once by each thread in each step that wants them. */
static const float *normed(const Tower *t, Worker *me, uint32_t step, const float *weight)
{
    int dim = t->shape.dim;
    if (me->normed_in != step) {
        const float *x = rows_of(t).x;
        for (int r = 0; r < t->call.n; r++)
            layer_norm(x + (size_t)r * dim, weight, weight + dim, t->shape.epsilon, dim, me->normed + (size_t)r * dim);
        me->normed_in = step;
    }
    return me->normed;
}

static void embed(const Tower *t, int number)
{
    const Shape *s = &t->shape;
    float *x = rows_of(t).x;
    panel(t->call.patches, s->pixels, &t->embed, number, x, s->dim, t->call.n, KEEP);
    int first = number * PANEL, last = first + PANEL;
    for (int r = 0; r < t->call.n; r++) {
        const int64_t *p = t->call.position + 4 * r;
        const float *a = t->table + p[0] * s->dim, *b = t->table + p[1] * s->dim;
        const float *c = t->table + p[2] * s->dim, *d = t->table + p[3] * s->dim;
        for (int i = first; i < last; i++)
            x[(size_t)r * s->dim + i] += (a[i] * 0.25f + b[i] * 0.25f) + (c[i] * 0.25f + d[i] * 0.25f);
    }
}

/* Queries, keys and values; the latter go into the cache, as (H, T, dh). */
static void qkv(const Tower *t, int layer, int number, const float *a)
{
    const Shape *s = &t->shape;
    const Call *call = &t->call;
    float *rows = rows_of(t).qkv;
    panel(a, s->dim, &t->layers[layer].qkv, number, rows, 3 * s->dim, call->n, KEEP);
    int size = s->dim / s->heads, first = number * PANEL;
    int part = first / s->dim, head = first % s->dim / size, inside = first % size;
    if (part == 0)
        return;
    float *cache = call->cache + (((size_t)layer * 2 + (size_t)part - 1) * s->heads + head) * s->tokens * size + inside;
    for (int r = 0; r < call->rows; r++)
        memcpy(cache + call->index[r] * size, rows + (size_t)call->source[r] * 3 * s->dim + first, PANEL * sizeof(float));
}

/* Some rows of one head attend to all tokens. */
static void attend(const Tower *t, Worker *me, int layer, int number)
{
    const Shape *s = &t->shape;
    const Call *call = &t->call;
    int n = call->n, blocks = blocks_of(n), head = number / blocks, block = number % blocks;
    int first = block * n / blocks, last = (block + 1) * n / blocks;
    int size = s->dim / s->heads, wide = up(s->tokens, PANEL) * PANEL;
    Rows rows = rows_of(t);
    const float *keys = call->cache + ((size_t)layer * 2 * s->heads + head) * s->tokens * size;
    const float *values = keys + (size_t)s->heads * s->tokens * size;
    float *turned = me->keys, scale = 1.0f / sqrtf((float)size);
    if (me->keys_of != layer * s->heads + head) { /* (dh, T), so that vectors run along the tokens */
        int whole = s->tokens / W * W;
        for (int i = 0; i < size; i += W)
            for (int j = 0; j < whole; j += W)
                turn(keys + (size_t)j * size + i, (size_t)size, turned + (size_t)i * wide + j, (size_t)wide);
        for (int i = 0; i < size; i++)
            for (int j = whole; j < s->tokens; j++)
                turned[(size_t)i * wide + j] = keys[(size_t)j * size + i];
        me->keys_of = layer * s->heads + head;
    }
    vec out[ROWS][2];
    for (int row = first; row < last;) {
        int high = height(last - row);
        const float *q = rows.qkv + (size_t)row * 3 * s->dim + head * size;
        for (int j = 0; j < wide; j += PANEL) {
            BLOCKS[high](q, 3 * (size_t)s->dim, turned + j, (size_t)wide, size, out);
            for (int r = 0; r < high; r++)
                put(me->scores + (size_t)r * wide + j, out[r][0]), put(me->scores + (size_t)r * wide + j + W, out[r][1]);
        }
        float share[ROWS];
        for (int r = 0; r < high; r++) {
            float *score = me->scores + (size_t)r * wide;
            for (int j = s->tokens; j < wide; j++)
                score[j] = -INFINITY;
            vec most = all(-INFINITY);
            for (int j = 0; j < wide; j += W) {
                vec v = at(score + j);
                ivec more = v > most;
                most = (vec)(((ivec)v & more) | ((ivec)most & ~more));
            }
            float top = most[0];
            for (int i = 1; i < W; i++)
                top = most[i] > top ? most[i] : top;
            vec total = {0};
            for (int j = 0; j < wide; j += W) {
                vec e = expv((at(score + j) - top) * scale);
                put(score + j, e);
                total += e;
            }
            for (int j = s->tokens; j < wide; j++)
                total[j % W] -= score[j];
            share[r] = 1.0f / sum(total);
        }
        for (int i = 0; i < size; i += PANEL) {
            BLOCKS[high](me->scores, (size_t)wide, values + i, (size_t)size, s->tokens, out);
            for (int r = 0; r < high; r++) {
                float *to = rows.found + (size_t)(row + r) * s->dim + head * size + i;
                put(to, out[r][0] * share[r]), put(to + W, out[r][1] * share[r]);
            }
        }
        row += high;
    }
}

static void part(const Tower *t, Worker *me, uint32_t step, int number)
{
    const Shape *s = &t->shape;
    Rows rows = rows_of(t);
    int n = t->call.n, layer = (int)(step - 1) / STEPS;
    if (step == 0) {
        embed(t, number);
        return;
    }
    if (layer == s->layers) {
        for (int r = number * BY_ROWS; r < n && r < (number + 1) * BY_ROWS; r++)
            layer_norm(rows.x + (size_t)r * s->dim, t->last, t->last + s->dim, s->epsilon, s->dim,
                       t->call.features + (size_t)r * s->dim);
        return;
    }
    const Layer *l = &t->layers[layer];
    switch ((step - 1) % STEPS) {
    case QKV: qkv(t, layer, number, normed(t, me, step, l->norm1)); break;
    case ATTEND: attend(t, me, layer, number); break;
    case OUT: panel(rows.found, s->dim, &l->out, number, rows.x, s->dim, n, ADD); break;
    case FC1: panel(normed(t, me, step, l->norm2), s->dim, &l->fc1, number, rows.hidden, s->inner, n, GELU); break;
    case FC2: panel(rows.hidden, s->inner, &l->fc2, number, rows.x, s->dim, n, ADD); break;
    }
}

/* A ticket is a step, how many parts it has, and the number of one of them: all that must be known to see that it is
 * worth nothing any more, whatever the call at hand is by then. */
enum { NO_STEP = 0xffff };
static uint64_t ticket(uint32_t step, int count) { return (uint64_t)step << 48 | (uint64_t)count << 32; }

/* Take parts of the step at hand until none is left; returns the step. */
static uint32_t take(Tower *t, Worker *me)
{
    for (;;) {
        uint64_t mine = atomic_fetch_add_explicit(&t->next, 1, memory_order_acq_rel);
        uint32_t step = (uint32_t)(mine >> 48), count = (uint32_t)(mine >> 32) & 0xffff, number = (uint32_t)mine;
        if (number >= count)
            return step;
        if (me->serial != t->serial) {
            me->serial = t->serial;
            me->normed_in = NO_STEP;
            me->keys_of = -1;
        }
        part(t, me, step, (int)number);
        atomic_fetch_add_explicit(&t->done, 1, memory_order_release);
    }
}

static void rest(int *spun)
{
    if (++*spun >= LONGEST_SPIN) {
        sched_yield();
        return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void *help(void *argument)
{
    Worker *me = argument;
    Tower *t = me->tower;
    uint64_t seen = 0;
    for (;;) {
        pthread_mutex_lock(&t->lock);
        while (!t->stop && t->serial == seen)
            pthread_cond_wait(&t->wake, &t->lock);
        seen = t->serial;
        int stop = t->stop;
        pthread_mutex_unlock(&t->lock);
        if (stop)
            return NULL;
        uint32_t step = take(t, me);
        for (int spun = 0; step != NO_STEP; step = take(t, me)) {
            uint64_t now = atomic_load_explicit(&t->next, memory_order_relaxed);
            while ((uint32_t)(now >> 48) == step) { /* the next step comes within microseconds */
                rest(&spun);
                now = atomic_load_explicit(&t->next, memory_order_relaxed);
            }
            spun = 0;
        }
    }
}

/* At least so many floats at *p; what was there is lost where there were fewer. */
static int make_room(float **p, size_t *room, size_t wanted)
{
    if (*room >= wanted)
        return 0;
    free(*p);
    *room = 0;
    *p = aligned_alloc(64, (wanted * sizeof(float) + 63) / 64 * 64);
    if (*p == NULL)
        return ENOMEM;
    memset(*p, 0, wanted * sizeof(float)); /* beyond the tokens, keys stay zeros */
    *room = wanted;
    return 0;
}

/* weights: for each part in the order of `Tower`, each on a multiple of PANEL floats. NULL: no memory. */
Tower *tower_new(const Shape *shape, const float *weights, int threads)
{
    Tower *t = calloc(1, sizeof *t);
    if (t == NULL || (t->layers = calloc((size_t)shape->layers, sizeof *t->layers)) == NULL) {
        free(t);
        return NULL;
    }
    t->shape = *shape;
    t->threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    const float *p = weights;
    size_t dim = (size_t)shape->dim, inner = (size_t)shape->inner;
#define NEXT(floats) (p += up((int)(floats), PANEL) * PANEL, p - up((int)(floats), PANEL) * PANEL)
#define LINEAR(in, out) {.panels = NEXT((in) * (size_t)(up((int)(out), PANEL) * PANEL)), .bias = NEXT(out)}
    t->embed = (Linear)LINEAR((size_t)shape->pixels, dim);
    t->table = NEXT((size_t)shape->tokens * dim);
    for (int i = 0; i < shape->layers; i++) {
        Layer *l = &t->layers[i];
        l->norm1 = NEXT(2 * dim);
        l->qkv = (Linear)LINEAR(dim, 3 * dim);
        l->out = (Linear)LINEAR(dim, dim);
        l->norm2 = NEXT(2 * dim);
        l->fc1 = (Linear)LINEAR(dim, inner);
        l->fc2 = (Linear)LINEAR(inner, dim);
    }
    t->last = NEXT(2 * dim);
    pthread_mutex_init(&t->lock, NULL);
    pthread_mutex_init(&t->busy, NULL);
    pthread_cond_init(&t->wake, NULL);
    atomic_store(&t->next, ticket(NO_STEP, 0));
    for (int i = 0; i < t->threads; i++)
        t->workers[i].tower = t;
    return t;
}

int tower_panel(void) { return PANEL; }

/* Memory and threads that a call with n tokens needs. */
static int hire(Tower *t, int n)
{
    const Shape *s = &t->shape;
    size_t wide = (size_t)up(s->tokens, PANEL) * PANEL, size = (size_t)(s->dim / s->heads);
    int fault = make_room(&t->scratch, &t->scratch_room, (size_t)n * (size_t)(5 * s->dim + s->inner));
    for (int i = 0; i < t->threads && !fault; i++) {
        Worker *w = &t->workers[i];
        fault = make_room(&w->keys, &w->room, wide * (size + ROWS) + (size_t)n * (size_t)s->dim);
        w->scores = w->keys + wide * size;
        w->normed = w->scores + wide * ROWS;
    }
    while (t->started < t->threads - 1 && !fault) {
        Worker *w = &t->workers[t->started + 1];
        if (pthread_create(&w->thread, NULL, help, w))
            t->threads = t->started + 1; /* with fewer, then */
        else
            t->started++;
    }
    return fault;
}

/* One selective encode; calls on one tower wait for each other. Returns 0, or an errno. */
int tower_encode(Tower *t, const Call *call)
{
    pthread_mutex_lock(&t->busy);
    int fault = hire(t, call->n);
    if (fault) {
        pthread_mutex_unlock(&t->busy);
        return fault;
    }
    pthread_mutex_lock(&t->lock);
    t->call = *call;
    t->serial++;
    uint32_t last = (uint32_t)(t->shape.layers * STEPS + 1);
    atomic_store_explicit(&t->done, 0, memory_order_relaxed);
    atomic_store_explicit(&t->next, ticket(0, parts(t, 0)), memory_order_release);
    if (t->started)
        pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
    for (uint32_t step = 0;; step++) {
        take(t, &t->workers[0]);
        uint32_t count = (uint32_t)parts(t, step);
        for (int spun = 0; atomic_load_explicit(&t->done, memory_order_acquire) != count;)
            rest(&spun);
        atomic_store_explicit(&t->done, 0, memory_order_relaxed);
        if (step == last)
            break;
        atomic_store_explicit(&t->next, ticket(step + 1, parts(t, step + 1)), memory_order_release);
    }
    atomic_store_explicit(&t->next, ticket(NO_STEP, 0), memory_order_release);
    pthread_mutex_unlock(&t->busy);
    return 0;
}

void tower_free(Tower *t)
{
    pthread_mutex_lock(&t->lock);
    t->stop = 1;
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
    for (int i = 0; i < t->started; i++)
        pthread_join(t->workers[i + 1].thread, NULL);
    for (int i = 0; i < t->threads; i++)
        free(t->workers[i].keys);
    free(t->scratch);
    free(t->layers);
    free(t);
}
