// Echo over gRPC C++, asynchronous on both sides, bytes without protobuf, for bench-rpc (peer.h).
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <string>
#include <vector>

#include "peer.h"

namespace
{

const char METHOD[] = "/bench/echo";

class Answer
{
  public:
    Answer(grpc::AsyncGenericService *service, grpc::ServerCompletionQueue *queue)
        : service_(service), queue_(queue), stream_(&context_)
    {
        service_->RequestCall(&context_, &stream_, queue_, queue_, this);
    }

    void step(bool is_fine)
    {
        switch (state_) {
        case State::Request:
            if (!is_fine)
                return;
            new Answer(service_, queue_);
            state_ = State::Body;
            stream_.Read(&body_, this);
            break;
        case State::Body:
            state_ = State::Reply;
            stream_.WriteAndFinish(body_, grpc::WriteOptions(), grpc::Status::OK, this);
            break;
        case State::Reply:
            delete this;
            break;
        }
    }

  private:
    enum class State { Request, Body, Reply };
    grpc::AsyncGenericService *service_;
    grpc::ServerCompletionQueue *queue_;
    grpc::GenericServerContext context_;
    grpc::GenericServerAsyncReaderWriter stream_;
    grpc::ByteBuffer body_;
    State state_ = State::Request;
};

void serve(int fd)
{
    grpc::AsyncGenericService service;
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterAsyncGenericService(&service);
    builder.SetMaxReceiveMessageSize(-1);
    std::unique_ptr<grpc::ServerCompletionQueue> queue = builder.AddCompletionQueue();
    std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    for (int i = 0; i < 64; i++)
        new Answer(&service, queue.get());
    peer_tell_port(fd, port);
    void *tag;
    bool is_fine;
    while (queue->Next(&tag, &is_fine))
        static_cast<Answer *>(tag)->step(is_fine);
}

struct Call {
    grpc::ClientContext context;
    grpc::ByteBuffer reply;
    grpc::Status status;
    std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
};

void request(grpc::GenericStub *stub, grpc::CompletionQueue *queue, const grpc::ByteBuffer &body)
{
    Call *call = new Call;
    call->reader = stub->PrepareUnaryCall(&call->context, METHOD, body, queue);
    call->reader->StartCall();
    call->reader->Finish(&call->reply, &call->status, call);
}

void await(grpc::CompletionQueue *queue, size_t bytes)
{
    void *tag;
    bool is_fine;
    if (!queue->Next(&tag, &is_fine))
        exit(1);
    Call *call = static_cast<Call *>(tag);
    if (!call->status.ok() || call->reply.Length() != bytes) {
        fprintf(stderr, "gRPC: %s\n", call->status.error_message().c_str());
        exit(1);
    }
    delete call;
}

} // namespace

int main(int argc, char **argv)
{
    peer_t peer;
    if (peer_start(&peer, argc, argv, serve) != 0)
        return 1;
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    grpc::GenericStub stub(grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(peer.port),
                                                     grpc::InsecureChannelCredentials(), arguments));
    grpc::CompletionQueue queue;
    std::string bytes(peer.bytes, '\0');
    grpc::Slice slice(bytes);
    grpc::ByteBuffer body(&slice, 1);
    request(&stub, &queue, body);
    await(&queue, peer.bytes);
    uint64_t calls = 0, until_ns = peer_begin(&peer);
    for (size_t i = 0; i < peer.in_flight; i++)
        request(&stub, &queue, body);
    while ((calls & 15) != 0 || peer_ns(CLOCK_MONOTONIC) < until_ns) {
        await(&queue, peer.bytes);
        calls++;
        request(&stub, &queue, body);
    }
    peer_end(&peer, calls);
    fflush(stdout);
    _exit(0); // calls are under way
}
