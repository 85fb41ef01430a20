//! Echo over HTTP/2 by hyper, one thread on each side, for bench-rpc (see ../../peer.h).
use hyper::body::{to_bytes, Bytes};
use hyper::{Body, Request, Response};
use std::cell::Cell;
use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

#[derive(Clone)]
struct Local;

impl<F: std::future::Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

const WINDOW: u32 = 4 << 20;

async fn echo(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let body = to_bytes(request.into_body()).await.unwrap_or_default();
    Ok(Response::new(Body::from(body)))
}

async fn serve() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let (socket, _) = listener.accept().await.unwrap();
    socket.set_nodelay(true).unwrap();
    let _ = hyper::server::conn::Http::new()
        .with_executor(Local)
        .http2_only(true)
        .http2_initial_stream_window_size(WINDOW)
        .http2_initial_connection_window_size(4 * WINDOW)
        .http2_max_concurrent_streams(1024)
        .serve_connection(socket, hyper::service::service_fn(echo))
        .await;
}

fn cpu(pid: i32) -> Duration {
    unsafe {
        let mut clock = 0;
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_getcpuclockid(pid, &mut clock);
        libc::clock_gettime(clock, &mut time);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

async fn call(sender: &mut hyper::client::conn::http2::SendRequest<Body>, body: Bytes) {
    let len = body.len();
    let request = Request::post("http://127.0.0.1/bench/echo").body(Body::from(body)).unwrap();
    let reply = sender.send_request(request).await.unwrap();
    assert_eq!(to_bytes(reply.into_body()).await.unwrap().len(), len);
}

async fn load(port: u16, server: i32, bytes: usize, in_flight: usize, seconds: f64) {
    let socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(Local)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .handshake(socket)
        .await
        .unwrap();
    tokio::task::spawn_local(connection);
    let body = Bytes::from(vec![0u8; bytes]);
    call(&mut sender, body.clone()).await;

    let me = std::process::id() as i32;
    let (client_cpu, server_cpu, start) = (cpu(me), cpu(server), Instant::now());
    let until = start + Duration::from_secs_f64(seconds);
    let calls = Rc::new(Cell::new(0u64));
    let mut tasks = Vec::new();
    for _ in 0..in_flight {
        let (mut sender, body, calls) = (sender.clone(), body.clone(), calls.clone());
        tasks.push(tokio::task::spawn_local(async move {
            loop {
                call(&mut sender, body.clone()).await;
                calls.set(calls.get() + 1);
                if Instant::now() >= until {
                    break;
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let (took, count) = (start.elapsed().as_secs_f64(), calls.get().max(1) as f64);
    let us = |from: Duration, to: Duration| (to - from).as_secs_f64() * 1e6 / count;
    println!("{:.1} {:.3} {:.3}", count / took, us(client_cpu, cpu(me)), us(server_cpu, cpu(server)));
}

/// Each side has a core of its own, as in bench/rpc.c.
fn pin(side: usize) {
    unsafe {
        let (mut all, mut one): (libc::cpu_set_t, libc::cpu_set_t) = (std::mem::zeroed(), std::mem::zeroed());
        let size = std::mem::size_of::<libc::cpu_set_t>();
        libc::sched_getaffinity(0, size, &mut all);
        let cores: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(|&i| libc::CPU_ISSET(i, &all)).collect();
        if cores.len() > 1 {
            libc::CPU_SET(cores[side], &mut one);
            libc::sched_setaffinity(0, size, &one);
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    if words.len() == 2 && words[1] == "serve" {
        pin(1);
        local.block_on(&runtime, serve());
        return;
    }
    assert!(words.len() == 4, "usage: peer-rpc-hyper BYTES IN_FLIGHT SECONDS");
    let mut server = Command::new(&words[0]).arg("serve").stdout(Stdio::piped()).spawn().unwrap();
    pin(0);
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let numbers = (words[1].parse().unwrap(), words[2].parse().unwrap(), words[3].parse().unwrap());
    let port = line.trim().parse().unwrap();
    local.block_on(&runtime, load(port, server.id() as i32, numbers.0, numbers.1, numbers.2));
    let _ = server.kill();
    let _ = server.wait();
}
