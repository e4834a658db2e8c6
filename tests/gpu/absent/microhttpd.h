/* In place of libmicrohttpd: no server starts.  See README. */
#ifndef ABSENT_MICROHTTPD_H
#define ABSENT_MICROHTTPD_H

#include <stddef.h>
#include <stdint.h>

#define MHD_HTTP_OK 200
#define MHD_HTTP_NOT_FOUND 404
#define MHD_HTTP_METHOD_NOT_ALLOWED 405
#define MHD_HTTP_INTERNAL_SERVER_ERROR 500
#define MHD_HTTP_HEADER_ALLOW "Allow"
#define MHD_HTTP_HEADER_CONNECTION "Connection"
#define MHD_HTTP_HEADER_CONTENT_TYPE "Content-Type"
#define MHD_HTTP_METHOD_GET "GET"
#define MHD_HTTP_METHOD_HEAD "HEAD"
#define MHD_UNSIGNED_LONG_LONG unsigned long long

struct MHD_Daemon;
struct MHD_Connection;
struct MHD_Response;
enum MHD_Result { MHD_NO, MHD_YES };
enum MHD_ConnectionNotificationCode { MHD_CONNECTION_NOTIFY_STARTED, MHD_CONNECTION_NOTIFY_CLOSED };
union MHD_ConnectionInfo {
	int connect_fd;
};
union MHD_DaemonInfo {
	int epoll_fd;
};
enum {
	MHD_CONNECTION_INFO_CONNECTION_FD, MHD_DAEMON_INFO_EPOLL_FD, MHD_OPTION_CONNECTION_LIMIT, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
	MHD_OPTION_CONNECTION_TIMEOUT, MHD_OPTION_END, MHD_OPTION_LISTEN_SOCKET, MHD_OPTION_NOTIFY_CONNECTION,
	MHD_OPTION_PER_IP_CONNECTION_LIMIT, MHD_RESPMEM_MUST_FREE, MHD_USE_EPOLL,
};

#define ABSENT(result, name, ...)              \
	static inline result name(__VA_ARGS__) \
	{                                      \
		return (result)0;              \
	}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
ABSENT(enum MHD_Result, MHD_add_response_header, struct MHD_Response *r, const char *name, const char *value)
ABSENT(enum MHD_Result, MHD_queue_response, struct MHD_Connection *c, unsigned status, struct MHD_Response *r)
ABSENT(enum MHD_Result, MHD_get_timeout, struct MHD_Daemon *d, MHD_UNSIGNED_LONG_LONG *ms)
ABSENT(enum MHD_Result, MHD_run, struct MHD_Daemon *d)
ABSENT(const union MHD_ConnectionInfo *, MHD_get_connection_info, struct MHD_Connection *c, int what, ...)
ABSENT(const union MHD_DaemonInfo *, MHD_get_daemon_info, struct MHD_Daemon *d, int what, ...)
ABSENT(struct MHD_Daemon *, MHD_start_daemon, unsigned flags, uint16_t port, void *policy, void *ctx_policy, void *handler, void *ctx, ...)
ABSENT(struct MHD_Response *, MHD_create_response_from_buffer, size_t n, void *data, int mode)
#pragma GCC diagnostic pop

static inline void MHD_destroy_response(struct MHD_Response *r)
{
	(void)r;
}

static inline void MHD_stop_daemon(struct MHD_Daemon *d)
{
	(void)d;
}

#endif
