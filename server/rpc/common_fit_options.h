// The options that all steering methods have, read from a configuration of any of them. Pure; any thread.
#ifndef TRIMTAB_SERVER_RPC_COMMON_FIT_OPTIONS_H_
#define TRIMTAB_SERVER_RPC_COMMON_FIT_OPTIONS_H_

#include "google/protobuf/any.pb.h"
#include "steering/method_registry.h"
#include "trimtab/methods/v1/fit.pb.h"

namespace trimtab {

// The field `fit` of `config` over that of the method's default configuration. `method` may be null: a revision of a
// method that this server does not have. `config` may be null: the defaults. Fields that neither sets, or that are in a
// message that is not linked into the server, as of a plugin, stay unset.
methods::v1::FitOptions CommonFitOptions(const MethodInfo* method, const google::protobuf::Any* config);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_COMMON_FIT_OPTIONS_H_
