//! Whatever the table can say is read back equal by the real Kryo 4.0.3, and written again by it as the same bytes. One Java
//! process (`tests/peers/kryo`, built by `scripts/install-test-peers`) reads a stream of messages.

use super::fields::{Element, Record};
use super::sample_tests::{Random, Sample};
use super::table::*;
use super::{Never, Writer};
use kryo_process::KryoProcess;

#[path = "../../../tests/src/peers/kryo_process.rs"]
mod kryo_process;

/// Messages that are under way at once: their replies fit into a pipe.
const BATCH: usize = 512;

/// How many outcomes of each response class.
const OUTCOMES: usize = 10_000;

/// What Kryo makes of a message, for a person.
fn explain(kryo: &mut KryoProcess, message: &[u8]) -> String {
    String::from_utf8_lossy(&kryo.told(b'x', message)).into_owned()
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A message with what its reader should say of it.
struct Sent {
    message: Vec<u8>,
    shown: u64,
    /// `None`: a map or set with several entries, which Java writes in another order.
    written: Option<u64>,
}

fn sent<T: Sample + Element>(value: &T, random: &Random, writer: &mut Writer) -> Sent {
    value.put_element(writer);
    let message = writer.take();
    let mut shown = String::new();
    value.shown(&mut shown);
    let written = (!random.unordered).then(|| fnv(&message));
    Sent { shown: fnv(shown.as_bytes()), written, message }
}

fn check(kryo: &mut KryoProcess, count: usize, mut make: impl FnMut(usize, &mut Writer) -> Sent) -> usize {
    let (mut writer, mut same) = (Writer::default(), 0);
    let mut index = 0;
    while index < count {
        let batch: Vec<Sent> =
            (index..count.min(index + BATCH)).map(|index| make(index, &mut writer)).collect();
        // Kryo reads while we write: the replies of a batch fit into the pipe.
        batch.iter().for_each(|sent| kryo.send(b'r', &sent.message));
        kryo.flush();
        let replies: Vec<(u8, u64, u64)> = batch
            .iter()
            .map(|_| {
                let [whole] = kryo.take();
                (whole, u64::from_be_bytes(kryo.take()), u64::from_be_bytes(kryo.take()))
            })
            .collect();
        for (sent, (whole, shown, written)) in batch.iter().zip(replies) {
            let equal =
                whole == 1 && shown == sent.shown && sent.written.is_none_or(|bytes| bytes == written);
            if !equal {
                panic!(
                    "message {index}\nsent: {}\nread: {}",
                    hex::encode(&sent.message),
                    explain(kryo, &sent.message)
                );
            }
            same += usize::from(sent.written.is_some());
            index += 1;
        }
    }
    same
}

fn envelope(random: &mut Random, response: Response) -> DelegateTaskResponse {
    DelegateTaskResponse {
        account_id: "acct1".to_owned(),
        response,
        response_code: Sample::sample(random),
        serialization_format: SerializationFormat::Kryo,
        task_type: Never::default(),
        task_type_name: "TASK".to_owned(),
    }
}

/// 10,000 outcomes of one response class, each in its envelope.
fn outcomes<T: Sample + Into<Response> + Record>(kryo: &mut KryoProcess, seed: u64) {
    let same = check(kryo, OUTCOMES, |index, writer| {
        let mut random = Random::new(seed ^ (u64::from(T::CLASS.id) << 32) ^ index as u64);
        let response: Response = T::sample(&mut random).into();
        sent(&envelope(&mut random, response), &random, writer)
    });
    assert!(same >= OUTCOMES / 4, "{}: only {same} were compared byte for byte", T::CLASS.name);
}

/// The same for what a Kubernetes step tells beside its status.
fn kubernetes<T: Sample + Into<K8sNGTaskResponse> + Record>(kryo: &mut KryoProcess, seed: u64) {
    check(kryo, OUTCOMES, |index, writer| {
        let mut random = Random::new(seed ^ (u64::from(T::CLASS.id) << 32) ^ index as u64);
        let told: K8sNGTaskResponse = T::sample(&mut random).into();
        let response = K8sDeployResponse { k8s_ng_task_response: Some(told), ..Sample::sample(&mut random) };
        sent(&envelope(&mut random, response.into()), &random, writer)
    });
}

#[test]
fn ten_thousand_outcomes_of_every_response_class_are_read_back_equal_by_the_real_kryo() {
    let seed = std::env::var("KRYO_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("KRYO_SEED={seed}");
    let kryo = &mut KryoProcess::start();
    outcomes::<HttpStepResponse>(kryo, seed);
    outcomes::<ShellScriptTaskResponseNG>(kryo, seed);
    outcomes::<CommandTaskResponse>(kryo, seed);
    kubernetes::<K8sRollingDeployResponse>(kryo, seed);
    kubernetes::<K8sRollingDeployRollbackResponse>(kryo, seed);
    kubernetes::<K8sCanaryDeployResponse>(kryo, seed);
    kubernetes::<K8sBGDeployResponse>(kryo, seed);
    kubernetes::<K8sScaleResponse>(kryo, seed);
    kubernetes::<K8sDryRunManifestResponse>(kryo, seed);
    kubernetes::<K8sTrafficRoutingResponse>(kryo, seed);
    outcomes::<EcsRollingDeployResponse>(kryo, seed);
    outcomes::<EcsRollingRollbackResponse>(kryo, seed);
    outcomes::<EcsPrepareRollbackDataResponse>(kryo, seed);
    outcomes::<EcsCanaryDeployResponse>(kryo, seed);
    outcomes::<EcsCanaryDeleteResponse>(kryo, seed);
    outcomes::<EcsBlueGreenPrepareRollbackDataResponse>(kryo, seed);
    outcomes::<EcsBlueGreenCreateServiceResponse>(kryo, seed);
    outcomes::<EcsBlueGreenSwapTargetGroupsResponse>(kryo, seed);
    outcomes::<EcsBlueGreenRollbackResponse>(kryo, seed);
    outcomes::<EcsRunTaskResponse>(kryo, seed);
    outcomes::<EcsBasicPrepareRollbackResponse>(kryo, seed);
    outcomes::<EcsServiceSetupResponse>(kryo, seed);
    outcomes::<EcsUpgradeContainerResponse>(kryo, seed);
    outcomes::<EcsBasicRollbackResponse>(kryo, seed);
    outcomes::<KubernetesConnectionTaskResponse>(kryo, seed);
    outcomes::<AwsValidateTaskResponse>(kryo, seed);
    outcomes::<GitCommandExecutionResponse>(kryo, seed);
    outcomes::<ErrorNotifyResponseData>(kryo, seed);
    // The root of a progress update.
    check(kryo, OUTCOMES, |index, writer| {
        let mut random = Random::new(seed ^ index as u64);
        sent(&UnitProgressData::sample(&mut random), &random, writer)
    });
}

#[test]
fn the_real_kryo_says_no_to_what_is_not_right() {
    let kryo = &mut KryoProcess::start();
    let mut random = Random::new(1);
    let right = super::message(&UnitProgressData::sample(&mut random));
    assert!(explain(kryo, &right).contains("whole: true"));
    // A class nobody registered, and a message with something after its end.
    for wrong in [vec![0xff, 0xff, 0x7f, 0x01], [right.as_slice(), &[0]].concat()] {
        assert!(explain(kryo, &wrong).contains("whole: false"), "{}", explain(kryo, &wrong));
    }
}
