#include <serry/backend.h>
const serry_backend serry_backend_socket = {.name = "socket"};
