/* datacake/datacake.h: everything but the storages on databases and the simulator. */
#ifndef DATACAKE_DATACAKE_H
#define DATACAKE_DATACAKE_H

#include <datacake/env.h>
#include <datacake/hlc.h>
#include <datacake/key.h>
#include <datacake/node.h>
#include <datacake/orswot.h>
#include <datacake/rpc.h>
#include <datacake/storage.h>
#include <datacake/store.h>
#include <datacake/uv.h>

#endif
