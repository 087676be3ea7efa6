/* Stands in for libnvidia-ml.so.1: answers from the text file that TIDEWISE_NVML_STATE names, read at each call.

   A line is "KEY: VALUE". KEY is a function (nvmlInitWithFlags), or a function of a card, with its argument where it
   has one (gpu0.nvmlDeviceGetClockInfo.1), or a whole card (gpu0), or a MIG device of one (gpu0.mig1). VALUE is what the
   function gives; "error N" makes it fail, "hang" makes it wait for as long as the line says so. What has no line is
   not supported. "event.1: 0 79" is the first XID, 79 of card 0; event.2 follows it.
   TIDEWISE_NVML_CALLS names a file to which each call is appended. */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CARDS 8
#define MIGS 8
#define OK 0
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define TIMEOUT 10
#define UNINITIALIZED 1

typedef unsigned int uint;
typedef unsigned long long ull;
typedef struct { char name[32]; } device;

static device cards[CARDS], migs[CARDS][MIGS];
static int initialised, delivered, registered[CARDS], samples;

static int look(const char *key, char *value, size_t size) {
    char line[4096];
    size_t length = strlen(key);
    const char *path = getenv("TIDEWISE_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    int found = 0;
    if (!file) return 0;
    while (!found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) || line[length] != ':') continue;
        char *from = line + length + 1;
        while (*from == ' ') from++;
        from[strcspn(from, "\n")] = 0;
        snprintf(value, size, "%s", from);
        found = 1;
    }
    fclose(file);
    return found;
}

/* What stands there: OK, the error of an "error N", or NOT_SUPPORTED. Waits out a "hang". */
static int answer(const char *key, char *value, size_t size) {
    int code;
    struct timespec moment = {0, 5000000};
    while (look(key, value, size)) {
        if (!strcmp(value, "hang")) { nanosleep(&moment, NULL); continue; }
        return sscanf(value, "error %d", &code) == 1 ? code : OK;
    }
    value[0] = 0;
    return NOT_SUPPORTED;
}

static int ask(device *card, char *value, size_t size, const char *format, ...) {
    char key[256], whole[64], function[160];
    va_list arguments;
    const char *calls = getenv("TIDEWISE_NVML_CALLS");
    va_start(arguments, format);
    vsnprintf(function, sizeof function, format, arguments);
    va_end(arguments);
    snprintf(key, sizeof key, "%s%s%s", card ? card->name : "", card ? "." : "", function);
    if (calls) {
        FILE *file = fopen(calls, "a");
        if (file) { fprintf(file, "%s\n", key); fclose(file); }
    }
    if (card) {
        if (!initialised) return UNINITIALIZED;
        snprintf(whole, sizeof whole, "%.5s", card->name); /* a MIG device goes with its card */
        whole[strcspn(whole, ".")] = 0;
        int code = answer(whole, value, size);
        if (code != OK && code != NOT_SUPPORTED) return code;
    }
    return answer(key, value, size);
}

static int ask_uint(device *card, uint *out, const char *function) {
    char value[4096];
    int code = ask(card, value, sizeof value, "%s", function);
    if (code == OK) *out = (uint)strtoull(value, NULL, 0);
    return code;
}

static int ask_uint_of(device *card, uint argument, uint *out, const char *function) {
    char value[4096];
    int code = ask(card, value, sizeof value, "%s.%u", function, argument);
    if (code == OK) *out = (uint)strtoull(value, NULL, 0);
    return code;
}

static int ask_text(device *card, char *out, uint size, const char *function) {
    char value[4096];
    int code = ask(card, value, sizeof value, "%s", function);
    if (code == OK) snprintf(out, size, "%s", value);
    return code;
}

int nvmlInitWithFlags(uint flags) {
    char value[4096];
    int code = ask(NULL, value, sizeof value, "nvmlInitWithFlags");
    if (code == NOT_SUPPORTED) code = OK;
    if (code != OK) return code;
    if (!initialised++)
        for (int i = 0; i < CARDS; i++) {
            snprintf(cards[i].name, sizeof cards[i].name, "gpu%d", i);
            for (int j = 0; j < MIGS; j++) snprintf(migs[i][j].name, sizeof migs[i][j].name, "gpu%d.mig%d", i, j);
        }
    return OK;
}

int nvmlShutdown(void) {
    char value[4096];
    ask(NULL, value, sizeof value, "nvmlShutdown");
    if (!initialised) return UNINITIALIZED;
    initialised--;
    return OK;
}

const char *nvmlErrorString(int code) { return "an error of the shim"; }

int nvmlSystemGetDriverVersion(char *out, uint size) { return ask_text(NULL, out, size, "nvmlSystemGetDriverVersion"); }
int nvmlSystemGetCudaDriverVersion(int *out) { return ask_uint(NULL, (uint *)out, "nvmlSystemGetCudaDriverVersion"); }
int nvmlDeviceGetCount_v2(uint *out) { return ask_uint(NULL, out, "nvmlDeviceGetCount_v2"); }

int nvmlDeviceGetHandleByIndex_v2(uint index, device **out) {
    char value[4096];
    int code = ask(NULL, value, sizeof value, "nvmlDeviceGetHandleByIndex_v2.%u", index);
    if (code != OK && code != NOT_SUPPORTED) return code;
    *out = &cards[index];
    return OK;
}

int nvmlDeviceGetUUID(device *card, char *out, uint size) { return ask_text(card, out, size, "nvmlDeviceGetUUID"); }
int nvmlDeviceGetName(device *card, char *out, uint size) { return ask_text(card, out, size, "nvmlDeviceGetName"); }

struct pci { char legacy[16]; uint domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(device *card, struct pci *out) {
    memset(out, 0, sizeof *out);
    return ask_text(card, out->bus_id, sizeof out->bus_id, "nvmlDeviceGetPciInfo_v3");
}

int nvmlDeviceGetCudaComputeCapability(device *card, int *major, int *minor) {
    char value[4096];
    int code = ask(card, value, sizeof value, "nvmlDeviceGetCudaComputeCapability");
    if (code == OK) sscanf(value, "%d %d", major, minor);
    return code;
}

static int ask_two(device *card, uint *one, uint *two, const char *function) {
    char value[4096];
    int code = ask(card, value, sizeof value, "%s", function);
    if (code == OK) sscanf(value, "%u %u", one, two);
    return code;
}

int nvmlDeviceGetUtilizationRates(device *card, uint *out) { return ask_two(card, out, out + 1, "nvmlDeviceGetUtilizationRates"); }
int nvmlDeviceGetEncoderUtilization(device *card, uint *out, uint *period) { return ask_two(card, out, period, "nvmlDeviceGetEncoderUtilization"); }
int nvmlDeviceGetDecoderUtilization(device *card, uint *out, uint *period) { return ask_two(card, out, period, "nvmlDeviceGetDecoderUtilization"); }

int nvmlDeviceGetMemoryInfo(device *card, ull *out) { /* total, free, used */
    char value[4096];
    int code = ask(card, value, sizeof value, "nvmlDeviceGetMemoryInfo");
    if (code == OK) sscanf(value, "%llu %llu %llu", out, out + 1, out + 2);
    return code;
}

struct memory { uint version; ull total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(device *card, struct memory *out) {
    char value[4096];
    int code = ask(card, value, sizeof value, "nvmlDeviceGetMemoryInfo_v2");
    if (code == OK) sscanf(value, "%llu %llu %llu %llu", &out->total, &out->reserved, &out->free, &out->used);
    return code;
}

int nvmlDeviceGetPowerUsage(device *card, uint *out) { return ask_uint(card, out, "nvmlDeviceGetPowerUsage"); }
int nvmlDeviceGetEnforcedPowerLimit(device *card, uint *out) { return ask_uint(card, out, "nvmlDeviceGetEnforcedPowerLimit"); }
int nvmlDeviceGetTemperature(device *card, uint sensor, uint *out) { return ask_uint_of(card, sensor, out, "nvmlDeviceGetTemperature"); }
int nvmlDeviceGetTemperatureThreshold(device *card, uint kind, uint *out) { return ask_uint_of(card, kind, out, "nvmlDeviceGetTemperatureThreshold"); }
int nvmlDeviceGetClockInfo(device *card, uint domain, uint *out) { return ask_uint_of(card, domain, out, "nvmlDeviceGetClockInfo"); }
int nvmlDeviceGetPcieThroughput(device *card, uint counter, uint *out) { return ask_uint_of(card, counter, out, "nvmlDeviceGetPcieThroughput"); }
int nvmlDeviceGetNvLinkState(device *card, uint link, uint *out) { return ask_uint_of(card, link, out, "nvmlDeviceGetNvLinkState"); }
int nvmlDeviceGetCurrPcieLinkGeneration(device *card, uint *out) { return ask_uint(card, out, "nvmlDeviceGetCurrPcieLinkGeneration"); }
int nvmlDeviceGetCurrPcieLinkWidth(device *card, uint *out) { return ask_uint(card, out, "nvmlDeviceGetCurrPcieLinkWidth"); }

/* nvmlDeviceGetCurrentClocksEventReasons is missing, as it is in drivers before 535. */
int nvmlDeviceGetCurrentClocksThrottleReasons(device *card, ull *out) {
    char value[4096];
    int code = ask(card, value, sizeof value, "nvmlDeviceGetCurrentClocksThrottleReasons");
    if (code == OK) *out = strtoull(value, NULL, 0);
    return code;
}

/* "u55" is an unsigned int, "d1.5" a double, plain digits an unsigned long long. */
struct field { uint id, scope; long long at, took; uint type, code; union { double d; uint u; ull l; } value; };
int nvmlDeviceGetFieldValues(device *card, int count, struct field *fields) {
    char value[4096];
    int code = ask(card, value, sizeof value, "nvmlDeviceGetFieldValues");
    if (code != OK && code != NOT_SUPPORTED) return code;
    for (int i = 0; i < count; i++) {
        char key[128];
        snprintf(key, sizeof key, "%s.field.%u", card->name, fields[i].id);
        fields[i].code = answer(key, value, sizeof value);
        if (fields[i].code != OK) continue;
        if (*value == 'u') { fields[i].type = 1; fields[i].value.u = strtoul(value + 1, NULL, 0); }
        else if (*value == 'd') { fields[i].type = 0; fields[i].value.d = strtod(value + 1, NULL); }
        else { fields[i].type = 3; fields[i].value.l = strtoull(value, NULL, 0); }
    }
    return OK;
}

struct support { uint version, supported; };
int nvmlGpmQueryDeviceSupport(device *card, struct support *out) { return ask_uint(card, &out->supported, "nvmlGpmQueryDeviceSupport"); }
struct sample { device *card; };
int nvmlGpmSampleAlloc(struct sample **out) { *out = calloc(1, sizeof **out); samples++; return OK; }
int nvmlGpmSampleFree(struct sample *sample) { free(sample); samples--; return OK; }
int shimSamples(void) { return samples; }
int shimInitialised(void) { return initialised; }
void shimReset(void) { initialised = delivered = samples = 0; }
int nvmlGpmSampleGet(device *card, struct sample *sample) {
    char value[4096];
    int code = ask(card, value, sizeof value, "nvmlGpmSampleGet");
    sample->card = card;
    return code == NOT_SUPPORTED ? OK : code;
}
struct metric { uint id, code; double value; char *texts[3]; };
struct metrics { uint version, count; struct sample *one, *two; struct metric metrics[1]; };
int nvmlGpmMetricsGet(struct metrics *asked) {
    char value[4096], key[128];
    for (uint i = 0; i < asked->count; i++) {
        snprintf(key, sizeof key, "%s.gpm.%u", asked->two->card->name, asked->metrics[i].id);
        asked->metrics[i].code = answer(key, value, sizeof value);
        if (asked->metrics[i].code == OK) asked->metrics[i].value = strtod(value, NULL);
    }
    return OK;
}

int nvmlDeviceGetMigMode(device *card, uint *now, uint *next) { return ask_two(card, now, next, "nvmlDeviceGetMigMode"); }
int nvmlDeviceGetMaxMigDeviceCount(device *card, uint *out) { return ask_uint(card, out, "nvmlDeviceGetMaxMigDeviceCount"); }
int nvmlDeviceGetMigDeviceHandleByIndex(device *card, uint index, device **out) {
    char value[4096], key[64];
    snprintf(key, sizeof key, "gpu%d.mig%u.nvmlDeviceGetUUID", (int)(card - cards), index);
    if (!look(key, value, sizeof value)) return NOT_FOUND;
    *out = &migs[card - cards][index];
    return OK;
}
int nvmlDeviceGetGpuInstanceId(device *mig, uint *out) { return ask_uint(mig, out, "nvmlDeviceGetGpuInstanceId"); }
int nvmlDeviceGetComputeInstanceId(device *mig, uint *out) { return ask_uint(mig, out, "nvmlDeviceGetComputeInstanceId"); }

/* "PID BYTES, PID BYTES"; bytes -1: the driver does not tell. Empty: none. */
struct process { uint pid; ull memory; uint gpu_instance, compute_instance; };
static int ask_processes(device *card, uint *count, struct process *out, const char *function) {
    char value[4096];
    int code = ask(card, value, sizeof value, "%s", function);
    uint room = *count, found = 0;
    if (code != OK) return code;
    char *rest;
    for (char *one = strtok_r(value, ",", &rest); one; one = strtok_r(NULL, ",", &rest)) {
        uint pid; long long bytes;
        if (sscanf(one, "%u %lld", &pid, &bytes) != 2) continue;
        if (out && found < room) out[found] = (struct process){pid, (ull)bytes, 0xFFFFFFFF, 0xFFFFFFFF};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(device *card, uint *count, struct process *out) { return ask_processes(card, count, out, "nvmlDeviceGetComputeRunningProcesses_v3"); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(device *card, uint *count, struct process *out) { return ask_processes(card, count, out, "nvmlDeviceGetGraphicsRunningProcesses_v3"); }

struct event { device *card; ull type, data; uint gpu_instance, compute_instance; };
int nvmlEventSetCreate(void **out) { *out = registered; memset(registered, 0, sizeof registered); return OK; }
int nvmlEventSetFree(void *set) { return OK; }
int nvmlDeviceRegisterEvents(device *card, ull types, void *set) {
    char value[4096];
    int code = ask(card, value, sizeof value, "nvmlDeviceRegisterEvents");
    if (code == OK) registered[card - cards] = 1;
    return code;
}
int nvmlEventSetWait_v2(void *set, struct event *out, uint milliseconds) {
    struct timespec moment = {0, 5000000};
    for (uint waited = 0; waited < milliseconds; waited += 5) {
        char key[32], value[4096];
        uint card, xid;
        snprintf(key, sizeof key, "event.%d", delivered + 1);
        if (look(key, value, sizeof value) && sscanf(value, "%u %u", &card, &xid) == 2) {
            delivered++;
            if (!registered[card]) continue;
            *out = (struct event){&cards[card], 8, xid, 0xFFFFFFFF, 0xFFFFFFFF};
            return OK;
        }
        nanosleep(&moment, NULL);
    }
    return TIMEOUT;
}
